-- What commands read and write inside their transaction.

-- One statement: the living one, else the newest tombstone.
-- name: newest_instance
SELECT coalesce(
    (SELECT body FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state <> 'DELETED'),
    (SELECT body FROM instances WHERE tenant = ?1 AND instance_id = ?2 AND state = 'DELETED' ORDER BY seq DESC LIMIT 1));

-- name: instance_by_uid
SELECT body FROM instances WHERE uid = ?;

-- name: newest_binding
SELECT coalesce(
    (SELECT body FROM bindings WHERE instance_uid = ?1 AND binding_id = ?2 AND state <> 'DELETED'),
    (SELECT body FROM bindings WHERE instance_uid = ?1 AND binding_id = ?2 AND state = 'DELETED'
        ORDER BY seq DESC LIMIT 1));

-- name: binding_by_uid
SELECT body FROM bindings WHERE uid = ?;

-- name: live_bindings
SELECT body FROM bindings WHERE instance_uid = ? AND state <> 'DELETED' ORDER BY uid;

-- name: operation
SELECT body FROM operations WHERE operation_id = ?;

-- name: operation_by_request
SELECT body FROM operations
WHERE tenant = ? AND request_principal = ? AND request_method = ? AND request_id = ?;

-- name: unfinished_operations
SELECT body FROM operations WHERE instance_uid = ? AND backlog > 0 ORDER BY operation_id;

-- name: dependents
SELECT o.body FROM operation_blocks AS b JOIN operations AS o ON o.operation_id = b.blocked
WHERE b.blocker = ? AND o.backlog > 0 ORDER BY b.blocked;

-- name: steps
SELECT body FROM steps WHERE operation_id = ? ORDER BY place;

-- name: secrets_of
SELECT owner, name, sealed FROM secrets WHERE owner = ? ORDER BY name;

-- name: plan
SELECT body FROM plans WHERE digest = ?;

-- What was worked on is looked at again soon.
-- name: put_instance
INSERT INTO instances (uid, tenant, instance_id, state, service_id, plan_id, last_operation,
    created_at, updated_at, deleted_at, body, counted_service, counted_plan, owner, orphan_since, orphan_seen)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (uid) DO UPDATE SET state = excluded.state, service_id = excluded.service_id,
    plan_id = excluded.plan_id, last_operation = excluded.last_operation, updated_at = excluded.updated_at,
    deleted_at = excluded.deleted_at, body = excluded.body, counted_service = excluded.counted_service,
    counted_plan = excluded.counted_plan, orphan_since = excluded.orphan_since,
    orphan_seen = CASE WHEN instances.orphan_since IS excluded.orphan_since THEN instances.orphan_seen
        ELSE excluded.orphan_since END,
    look_at = CASE WHEN instances.state = excluded.state THEN instances.look_at ELSE 0 END;

-- name: put_binding
INSERT INTO bindings (uid, tenant, instance_id, instance_uid, binding_id, state, last_operation,
    created_at, updated_at, deleted_at, body, counted_service, counted_plan, expires_at, rotate_at, retry_at, rotated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (uid) DO UPDATE SET state = excluded.state, last_operation = excluded.last_operation,
    updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, body = excluded.body,
    expires_at = excluded.expires_at, rotate_at = excluded.rotate_at, retry_at = excluded.retry_at;

-- name: add_operation
INSERT INTO operations (operation_id, tenant, instance_id, instance_uid, binding_id, subject, verb, state, backlog,
    provider, waiting, due_at, ready, lease_owner, request_principal, request_method, request_id, origin,
    parent, created_at, ended_at, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: change_operation
UPDATE operations SET state = ?2, backlog = ?3, waiting = ?4, due_at = ?5, ready = ?6, lease_owner = ?7, ended_at = ?8,
    body = ?9
WHERE operation_id = ?1;

-- name: put_operation_body
UPDATE operations SET body = ?2 WHERE operation_id = ?1;

-- name: block
INSERT OR IGNORE INTO operation_blocks (blocker, blocked) VALUES (?, ?);

-- name: unblock
DELETE FROM operation_blocks WHERE blocked = ?;

-- name: put_step
INSERT INTO steps (operation_id, place, body) VALUES (?, ?, ?)
ON CONFLICT (operation_id, place) DO UPDATE SET body = excluded.body;

-- name: put_secret
INSERT INTO secrets (owner, name, sealed) VALUES (?, ?, ?)
ON CONFLICT (owner, name) DO UPDATE SET sealed = excluded.sealed;

-- name: mark_holder
SELECT owner FROM unique_marks WHERE field = ? AND digest = ?;

-- name: put_mark
INSERT OR IGNORE INTO unique_marks (field, digest, owner) VALUES (?, ?, ?);

-- name: erase_marks
DELETE FROM unique_marks WHERE owner = ?;

-- name: erase_secrets
DELETE FROM secrets WHERE owner = ?;

-- name: steps_of_subject
SELECT s.body FROM operations AS o JOIN steps AS s ON s.operation_id = o.operation_id WHERE o.subject = ?;

-- name: put_event
INSERT INTO events (revision, kind, tenant, instance_id, binding_id, operation_id, uid, state, at, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_meta
INSERT OR IGNORE INTO meta (name, value) VALUES (?, ?);

-- name: meta
SELECT value FROM meta WHERE name = ?;

-- name: freezes
SELECT body FROM freezes ORDER BY name;

-- name: put_freeze
INSERT OR IGNORE INTO freezes (name, body) VALUES (?, ?);

-- name: delete_freeze
DELETE FROM freezes WHERE name = ?;

-- name: put_token
INSERT INTO tokens (token_id, body) VALUES (?, ?);

-- name: revoke_token
UPDATE tokens SET revoked_at = ? WHERE token_id = ? AND revoked_at IS NULL;

-- name: note_use
UPDATE tokens SET used_at = max(coalesce(used_at, 0), ?) WHERE token_id = ?;
