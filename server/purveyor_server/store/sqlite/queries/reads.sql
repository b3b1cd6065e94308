-- Committed reads. Every list ends in conditions, order and limit that reads.py adds as parameters.

-- name: instance
SELECT body FROM (
    SELECT body FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state <> 'DELETED'
    UNION ALL
    SELECT * FROM (SELECT body FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state = 'DELETED'
        ORDER BY seq DESC LIMIT 1))
LIMIT 1;

-- name: instances
SELECT body FROM instances WHERE tenant = ? AND uid > ?;

-- name: binding
WITH incarnation (uid) AS (SELECT uid FROM (
    SELECT uid FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state <> 'DELETED'
    UNION ALL
    SELECT * FROM (SELECT uid FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state = 'DELETED'
        ORDER BY seq DESC LIMIT 1))
LIMIT 1)
SELECT body FROM (
    SELECT body FROM bindings WHERE instance_uid = (SELECT uid FROM incarnation) AND binding_id = ?3
        AND state <> 'DELETED'
    UNION ALL
    SELECT * FROM (SELECT body FROM bindings WHERE instance_uid = (SELECT uid FROM incarnation) AND binding_id = ?3
        AND state = 'DELETED' ORDER BY seq DESC LIMIT 1))
LIMIT 1;

-- name: bindings
SELECT body FROM bindings WHERE tenant = ? AND uid > ?;

-- name: operation
SELECT body FROM operations
WHERE operation_id = ?1 AND (?2 IS NULL OR tenant IN (SELECT value FROM json_each(?2)));

-- name: operations_named
SELECT body FROM operations
WHERE operation_id IN (SELECT value FROM json_each(?1)) AND (?2 IS NULL OR tenant IN (SELECT value FROM json_each(?2)));

-- name: operations
SELECT body FROM operations WHERE tenant = ? AND operation_id > ?;

-- name: of_instance_id
instance_uid IN (SELECT uid FROM instances WHERE tenant = ? AND instance_id = ? AND state <> 'DELETED'
    UNION ALL SELECT uid FROM instances WHERE tenant = ? AND instance_id = ? AND state = 'DELETED');

-- name: steps
SELECT s.body FROM operations AS o JOIN steps AS s ON s.operation_id = o.operation_id
WHERE o.operation_id = ?1 AND (?2 IS NULL OR o.tenant IN (SELECT value FROM json_each(?2))) ORDER BY s.place;

-- name: secret
SELECT owner, name, sealed FROM secrets WHERE owner = ? AND name = ?;

-- name: plan
SELECT body FROM plans WHERE digest = ?;

-- name: events
SELECT CAST(s.value AS INTEGER), e.revision, e.kind, e.tenant, e.instance_id, e.binding_id, e.operation_id, e.uid,
    e.state, e.at, e.body
FROM settings AS s LEFT JOIN (SELECT * FROM events WHERE revision > ? ORDER BY revision LIMIT ?) AS e
WHERE s.name = 'earliest' ORDER BY e.revision;

-- name: meta
SELECT value FROM meta WHERE name = ?;

-- name: metas
SELECT name, value FROM meta WHERE substr(name, 1, length(?1)) = ?1;

-- name: sealed
SELECT owner, name, substr(sealed, 1, ?) FROM secrets WHERE (owner, name) > (?, ?) ORDER BY owner, name LIMIT ?;

-- name: alive
SELECT value FROM settings WHERE name = 'store_id';

-- name: freezes
SELECT body FROM freezes ORDER BY name;

-- name: unfinished
SELECT provider, waiting, count(*), sum(verb = 'CLEANUP'), min(created_at), min(operation_id)
FROM operations INDEXED BY operations_unfinished WHERE backlog > 0 GROUP BY provider, waiting;

-- Remains that are kept: of failed operations that are still the last word about their resource.
-- name: held
SELECT count(*) FROM operations AS o INDEXED BY operations_held
WHERE o.backlog = 0 AND o.waiting = 'HELD' AND (
    EXISTS (SELECT 1 FROM instances AS i
        WHERE i.uid = o.subject AND i.last_operation = o.operation_id AND i.state = 'FAILED')
    OR EXISTS (SELECT 1 FROM bindings AS b
        WHERE b.uid = o.subject AND b.last_operation = o.operation_id AND b.state = 'FAILED'));

-- name: every_unfinished
SELECT body FROM operations INDEXED BY operations_unfinished
WHERE backlog > 0 AND (instance_uid, operation_id) > (?, ?) ORDER BY instance_uid, operation_id LIMIT ?;

-- name: every_instance
SELECT body FROM instances WHERE uid > ? AND state <> 'DELETED' ORDER BY uid LIMIT ?;

-- name: setting
SELECT value FROM settings WHERE name = ?;

-- name: earliest
SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'earliest';

-- name: token
SELECT body, used_at, revoked_at FROM tokens WHERE token_id = ?;

-- name: tokens
SELECT body, used_at, revoked_at FROM tokens WHERE token_id > ? ORDER BY token_id LIMIT ?;
