-- Every catalog that was applied, and what there is of each plan.

-- name: newest
SELECT version, digest, body, applied_at, principal, reason, origin, request_id
FROM catalogs ORDER BY version DESC LIMIT 1;

-- name: version
SELECT version, digest, body, applied_at, principal, reason, origin, request_id FROM catalogs WHERE version = ?;

-- name: history
SELECT version, digest, '', applied_at, principal, reason, origin, request_id
FROM catalogs WHERE ?1 = 0 OR version < ?1 ORDER BY version DESC LIMIT ?2;

-- name: of_file
SELECT version, digest, '', applied_at, principal, reason, origin, request_id
FROM catalogs WHERE origin = 'FILE' ORDER BY version DESC LIMIT 1;

-- name: of_request
SELECT version, digest, '', applied_at, principal, reason, origin, request_id
FROM catalogs WHERE principal = ? AND request_id = ? AND request_id <> '';

-- name: put
INSERT INTO catalogs (version, digest, body, applied_at, principal, reason, origin, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_plan
INSERT OR IGNORE INTO plans (digest, body) VALUES (?, ?);

-- name: plan_usage
SELECT service_id, plan_id, sum(instances), sum(bindings) FROM usage
GROUP BY service_id, plan_id HAVING sum(instances) <> 0 OR sum(bindings) <> 0;

-- name: instances_of_plan
SELECT body FROM instances
WHERE counted_service = ? AND counted_plan = ? AND uid > ? AND state <> 'DELETED' ORDER BY uid LIMIT ?;
