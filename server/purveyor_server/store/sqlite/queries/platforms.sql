-- Inventories of platforms.

-- name: last_inventory
SELECT body FROM platform_inventories WHERE tenant = ? AND owner = ?;

-- name: put_inventory
INSERT INTO platform_inventories (tenant, owner, body) VALUES (?, ?, ?)
ON CONFLICT (tenant, owner) DO UPDATE SET body = excluded.body;

-- name: left_out_again
UPDATE instances SET orphan_seen = ? WHERE uid = ? AND orphan_since IS NOT NULL;

-- name: placed
SELECT uid, instance_id, created_at, orphan_since IS NOT NULL, state = 'DEPROVISIONING'
FROM instances INDEXED BY instances_of_owner
WHERE tenant = ? AND owner = ? AND owner <> '' AND state <> 'DELETED' AND uid > ? ORDER BY uid LIMIT ?;

-- name: platform_orphans
SELECT i.body, i.orphan_seen, (SELECT count(*) FROM bindings AS b WHERE b.instance_uid = i.uid AND b.state <> 'DELETED')
FROM instances AS i INDEXED BY instances_orphaned
WHERE i.orphan_since IS NOT NULL AND i.state <> 'DELETED' AND i.uid > ?1
    AND (?2 IS NULL OR (i.orphan_seen > i.orphan_since AND i.orphan_seen - i.orphan_since >= ?2))
ORDER BY i.uid LIMIT ?3;

-- name: platform_orphan_count
SELECT count(*) FROM instances INDEXED BY instances_orphaned WHERE orphan_since IS NOT NULL AND state <> 'DELETED';
