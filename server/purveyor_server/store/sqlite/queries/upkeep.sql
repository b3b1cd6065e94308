-- Opening, counting and forgetting.

-- name: setting
SELECT value FROM settings WHERE name = ?;

-- name: put_setting
INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: delete_setting
DELETE FROM settings WHERE name = ?;

-- name: newest_revision
SELECT max(revision) FROM events;

-- name: backlog
SELECT coalesce(sum(backlog = 1), 0), coalesce(sum(backlog = 2), 0)
FROM operations INDEXED BY operations_unfinished WHERE backlog > 0;

-- name: ended_operations
SELECT o.ended_at, o.seq, o.operation_id,
    EXISTS (SELECT 1 FROM instances AS i
        WHERE i.uid = o.instance_uid AND i.last_operation = o.operation_id AND i.state <> 'DELETED')
    OR EXISTS (SELECT 1 FROM bindings AS b
        WHERE b.uid = o.subject AND b.last_operation = o.operation_id AND b.state <> 'DELETED')
    OR EXISTS (SELECT 1 FROM operations AS c
        WHERE c.origin = o.operation_id AND c.origin <> '' AND c.backlog > 0)
    OR EXISTS (SELECT 1 FROM operation_blocks AS k WHERE k.blocker = o.operation_id)
FROM operations AS o
WHERE o.backlog = 0 AND (o.ended_at, o.seq) > (?, ?) AND o.ended_at < ?
ORDER BY o.ended_at, o.seq LIMIT ?;

-- name: delete_operation
DELETE FROM operations WHERE operation_id = ? AND backlog = 0;

-- name: gone_bindings
SELECT uid FROM bindings AS b WHERE state = 'DELETED' AND deleted_at < ?
    AND NOT EXISTS (SELECT 1 FROM operations AS o WHERE o.subject = b.uid AND o.backlog > 0)
ORDER BY deleted_at LIMIT ?;

-- name: delete_binding
DELETE FROM bindings WHERE uid = ? AND state = 'DELETED';

-- One that was purged while it was adopted, protected or left alone stays: what it left behind would be an orphan like any other.
-- name: gone_instances
SELECT uid FROM instances AS i WHERE state = 'DELETED' AND deleted_at < ?
    AND NOT (coalesce(json_array_length(CAST(body AS TEXT), '$.cleanup_required'), 0) > 0 AND (
        coalesce(json_extract(CAST(body AS TEXT), '$.adopted'), 0)
        OR coalesce(json_extract(CAST(body AS TEXT), '$.deletion_protected'), 0)
        OR json_extract(CAST(body AS TEXT), '$.reconcile_paused') IS NOT NULL))
    AND NOT EXISTS (SELECT 1 FROM operations AS o WHERE o.instance_uid = i.uid)
    AND NOT EXISTS (SELECT 1 FROM bindings AS b WHERE b.instance_uid = i.uid AND b.state <> 'DELETED')
    AND NOT EXISTS (SELECT 1 FROM bindings AS b WHERE b.instance_uid = i.uid AND b.state = 'DELETED')
ORDER BY deleted_at LIMIT ?;

-- name: delete_instance
DELETE FROM instances WHERE uid = ? AND state = 'DELETED';

-- name: last_old_event
SELECT max(revision) FROM (SELECT revision, at FROM events ORDER BY revision LIMIT ?) WHERE at < ?;

-- name: delete_events
DELETE FROM events WHERE revision <= ?;

-- name: reseal
UPDATE secrets SET sealed = ? WHERE owner = ? AND name = ? AND sealed = ?;

-- name: swap_meta
UPDATE meta SET value = ? WHERE name = ? AND value = ?;

-- name: delete_meta
DELETE FROM meta WHERE name = ? AND value = ?;
