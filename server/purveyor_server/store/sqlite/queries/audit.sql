-- Audit records, their chain, and what is asked of them.

-- name: put_audit
INSERT INTO audit (number, at, body, key, chain) VALUES (?, ?, ?, ?, ?);

-- name: put_head
INSERT INTO audit_head (one, number, began, key, chain, mac) VALUES (1, ?, ?, ?, ?, ?)
ON CONFLICT (one) DO UPDATE SET number = excluded.number, began = excluded.began, key = excluded.key,
    chain = excluded.chain, mac = excluded.mac;

-- name: put_cut
INSERT OR REPLACE INTO audit_cuts (number, at, removed, key, chain, mac) VALUES (?, ?, ?, ?, ?, ?);

-- name: forget_cuts
DELETE FROM audit_cuts WHERE number NOT IN (SELECT number FROM audit_cuts ORDER BY number DESC LIMIT ?);

-- name: marks
-- One statement, so that all of it is as of one moment.
SELECT h.number, h.began, h.key, h.chain, h.mac, c.number, c.at, c.removed, c.key, c.chain, c.mac,
    max(coalesce((SELECT max(number) FROM audit), 0), coalesce(c.number, 0))
FROM (SELECT 1 AS one) LEFT JOIN audit_head AS h ON h.one = 1
LEFT JOIN audit_cuts AS c ON c.number = (SELECT max(number) FROM audit_cuts);

-- name: link
SELECT number, at, body, key, chain FROM audit WHERE number = ?;

-- name: links
SELECT number, at, body, key, chain FROM audit WHERE number > ? AND number <= ? ORDER BY number LIMIT ?;

-- name: last_old
-- The last one before the first, among so many of the oldest, that is not old.
WITH oldest AS (SELECT number, at FROM audit ORDER BY number LIMIT ?1)
SELECT coalesce((SELECT min(number) - 1 FROM oldest WHERE at >= ?2), (SELECT max(number) FROM oldest), 0);

-- name: forget
DELETE FROM audit WHERE number <= ?;

-- name: chain_at
SELECT chain FROM audit WHERE number = ?;

-- name: range
SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM audit;

-- name: records
-- Every list goes on with conditions, order and limit that auditing.py adds as parameters.
SELECT a.number, a.at, a.body, a.key, a.chain, (SELECT b.chain FROM audit AS b WHERE b.number = a.number - 1)
FROM audit AS a WHERE a.number >= ? AND a.number <= ?;
