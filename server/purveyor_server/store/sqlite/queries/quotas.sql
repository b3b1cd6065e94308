-- What tenants have and may have.

-- name: usage
SELECT service_id, plan_id, instances, bindings FROM usage WHERE tenant = ?;

-- name: set_for
SELECT body FROM quotas WHERE tenant = ?;

-- No limit is larger than what is counted here.
-- name: bindings_of
SELECT count(*) FROM (SELECT 1 FROM bindings WHERE instance_uid = ? AND state <> 'DELETED' LIMIT 10000);

-- name: quota
SELECT body FROM quotas WHERE tenant = ? AND service_id = ? AND plan_id = ?;

-- name: put_quota
INSERT INTO quotas (tenant, service_id, plan_id, body) VALUES (?, ?, ?, ?)
ON CONFLICT (tenant, service_id, plan_id) DO UPDATE SET body = excluded.body;

-- name: delete_quota
DELETE FROM quotas WHERE tenant = ? AND service_id = ? AND plan_id = ?;

-- name: tenants
SELECT tenant FROM (SELECT DISTINCT tenant FROM usage WHERE tenant > ?1 UNION SELECT DISTINCT tenant FROM quotas WHERE tenant > ?1)
ORDER BY tenant LIMIT ?2;

-- name: used_by
SELECT tenant, service_id, plan_id, instances, bindings FROM usage
WHERE tenant IN (SELECT value FROM json_each(?)) ORDER BY tenant, service_id, plan_id;

-- name: set_by
SELECT body FROM quotas
WHERE tenant IN (SELECT value FROM json_each(?)) ORDER BY tenant, service_id, plan_id;

-- Every tenant that has or had anything, one after the other: an index walk per tenant.
-- name: next_tenant
SELECT min(tenant) FROM (
    SELECT min(tenant) AS tenant FROM instances WHERE tenant > ?1
    UNION ALL SELECT min(tenant) FROM bindings WHERE tenant > ?1
    UNION ALL SELECT min(tenant) FROM usage WHERE tenant > ?1);

-- What the counters of a tenant should be and are not: empty when they are right.
-- name: miscounted
WITH there AS (
    SELECT counted_service AS service_id, counted_plan AS plan_id, sum(instance) AS instances, sum(binding) AS bindings
    FROM (
        SELECT counted_service, counted_plan, 1 AS instance, 0 AS binding FROM instances
        WHERE tenant = ?1 AND state <> 'DELETED'
        UNION ALL
        SELECT counted_service, counted_plan, 0, 1 FROM bindings WHERE tenant = ?1 AND state <> 'DELETED')
    GROUP BY 1, 2)
SELECT t.service_id, t.plan_id, t.instances, t.bindings FROM there AS t
LEFT JOIN usage AS u ON u.tenant = ?1 AND u.service_id = t.service_id AND u.plan_id = t.plan_id
WHERE u.instances IS NOT t.instances OR u.bindings IS NOT t.bindings
UNION ALL
SELECT u.service_id, u.plan_id, 0, 0 FROM usage AS u
WHERE u.tenant = ?1 AND (u.instances <> 0 OR u.bindings <> 0)
    AND NOT EXISTS (SELECT 1 FROM there AS t WHERE t.service_id = u.service_id AND t.plan_id = u.plan_id);

-- name: put_usage
INSERT INTO usage (tenant, service_id, plan_id, instances, bindings) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant, service_id, plan_id) DO UPDATE SET instances = excluded.instances, bindings = excluded.bindings;
