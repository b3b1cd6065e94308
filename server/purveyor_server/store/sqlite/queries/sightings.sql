-- What sweeps have seen.

-- name: put
INSERT INTO sightings (provider, kind, name, uid, state, sweep, tried_at, last_seen, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (provider, kind, name) DO UPDATE SET uid = excluded.uid, state = excluded.state, sweep = excluded.sweep,
    tried_at = excluded.tried_at, last_seen = excluded.last_seen, body = excluded.body;

-- name: one
SELECT body FROM sightings WHERE provider = ? AND kind = ? AND name = ?;

-- name: sighted
SELECT body FROM sightings
WHERE uid IN (SELECT value FROM json_each(?2)) AND provider = ?1 AND state IN ('SEEN', 'CONFIRMED', 'QUARANTINED', 'IGNORED');

-- name: list
SELECT seq, body FROM sightings WHERE seq > ?1 AND (?2 = '' OR provider = ?2)
    AND (?3 = '[]' OR state IN (SELECT value FROM json_each(?3)))
ORDER BY seq LIMIT ?4;

-- name: due
SELECT body, tried_at, seq FROM sightings
WHERE provider = ?1 AND state = ?2 AND sweep = ?3 AND (tried_at, seq) > (?4, ?5)
ORDER BY tried_at, seq LIMIT ?6;

-- name: lost
SELECT body FROM sightings INDEXED BY sightings_by_sweep
WHERE provider = ? AND sweep < ? AND state IN ('SEEN', 'CONFIRMED', 'QUARANTINED', 'IGNORED') LIMIT ?;

-- name: forget
DELETE FROM sightings WHERE seq IN (
    SELECT seq FROM sightings INDEXED BY sightings_ended
    WHERE state IN ('REAPED', 'GONE', 'ADOPTED') AND last_seen < ? LIMIT ?);

-- name: counts
SELECT provider, state, count(*) FROM sightings GROUP BY provider, state;

-- name: put_inventory
INSERT INTO inventories (provider, body) VALUES (?, ?) ON CONFLICT (provider) DO UPDATE SET body = excluded.body;

-- name: inventory
SELECT body FROM inventories WHERE provider = ?;

-- name: inventories
SELECT body FROM inventories ORDER BY provider;

-- name: every_plan
SELECT body FROM plans WHERE digest > ? ORDER BY digest LIMIT ?;

-- What the store has of uids. A tombstone says whether its instance was adopted, protected or left alone.
-- name: records
SELECT uid, state, 'instance ' || tenant || '/' || instance_id, state = 'DELETED' AND (
    coalesce(json_extract(CAST(body AS TEXT), '$.adopted'), 0)
    OR coalesce(json_extract(CAST(body AS TEXT), '$.deletion_protected'), 0)
    OR json_extract(CAST(body AS TEXT), '$.reconcile_paused') IS NOT NULL)
FROM instances WHERE uid IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT uid, state, 'binding ' || tenant || '/' || instance_id || '/' || binding_id, 0
FROM bindings WHERE uid IN (SELECT value FROM json_each(?1));

-- name: at_work
SELECT instance_uid, operation_id FROM operations
WHERE backlog > 0 AND instance_uid IN (SELECT value FROM json_each(?1))
UNION
SELECT subject, operation_id FROM operations
WHERE backlog > 0 AND subject IN (SELECT value FROM json_each(?1))
ORDER BY 1, 2;
