-- Looks at backends.

-- name: observation
SELECT body FROM observations WHERE uid = ?;

-- name: put_observation
INSERT INTO observations (uid, drift, listed, body) VALUES (?, ?, ?, ?)
ON CONFLICT (uid) DO UPDATE SET drift = excluded.drift, listed = excluded.listed, body = excluded.body;

-- name: look_again
UPDATE instances SET look_at = ? WHERE uid = ?;

-- name: due_looks
SELECT body FROM instances INDEXED BY instances_to_look_at
WHERE state = 'READY' AND look_at <= ? ORDER BY look_at, uid LIMIT ?;

-- name: drifted
SELECT i.body, o.body FROM observations AS o INDEXED BY observations_listed JOIN instances AS i ON i.uid = o.uid
WHERE o.listed = 1 AND o.uid > ? ORDER BY o.uid LIMIT ?;

-- name: drift_counts
SELECT drift, count(*) FROM observations INDEXED BY observations_listed WHERE listed = 1 GROUP BY drift;
