-- What a tenant has of each plan, counted by the statements that change it: a trigger cannot be forgotten by a command, and
-- is undone with it. Everything that is not DELETED counts. `counted_service` and `counted_plan` say as what.

ALTER TABLE instances ADD COLUMN counted_service TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN counted_plan TEXT NOT NULL DEFAULT '';
ALTER TABLE bindings ADD COLUMN counted_service TEXT NOT NULL DEFAULT '';
ALTER TABLE bindings ADD COLUMN counted_plan TEXT NOT NULL DEFAULT '';

UPDATE instances SET
    counted_service = coalesce(json_extract(CAST(body AS TEXT), '$.in_flight.service_id'), service_id),
    counted_plan = coalesce(json_extract(CAST(body AS TEXT), '$.in_flight.plan_id'), plan_id)
WHERE state <> 'DELETED';
UPDATE bindings SET
    counted_service = json_extract(CAST(body AS TEXT), '$.service_id'),
    counted_plan = json_extract(CAST(body AS TEXT), '$.plan_id')
WHERE state <> 'DELETED';

CREATE TABLE usage (
    tenant TEXT NOT NULL,
    service_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    instances INTEGER NOT NULL,
    bindings INTEGER NOT NULL,
    PRIMARY KEY (tenant, service_id, plan_id)
) STRICT, WITHOUT ROWID;

INSERT INTO usage (tenant, service_id, plan_id, instances, bindings)
SELECT tenant, counted_service, counted_plan, sum(instance), sum(binding) FROM (
    SELECT tenant, counted_service, counted_plan, 1 AS instance, 0 AS binding FROM instances WHERE state <> 'DELETED'
    UNION ALL
    SELECT tenant, counted_service, counted_plan, 0, 1 FROM bindings WHERE state <> 'DELETED')
GROUP BY tenant, counted_service, counted_plan;

CREATE TRIGGER instance_made AFTER INSERT ON instances WHEN new.state <> 'DELETED' BEGIN
    INSERT INTO usage VALUES (new.tenant, new.counted_service, new.counted_plan, 1, 0)
    ON CONFLICT DO UPDATE SET instances = instances + 1;
END;

CREATE TRIGGER instance_gone AFTER UPDATE OF state ON instances
WHEN old.state <> 'DELETED' AND new.state = 'DELETED' BEGIN
    UPDATE usage SET instances = instances - 1
    WHERE tenant = old.tenant AND service_id = old.counted_service AND plan_id = old.counted_plan;
END;

CREATE TRIGGER instance_moved AFTER UPDATE OF counted_service, counted_plan ON instances
WHEN old.state <> 'DELETED' AND new.state <> 'DELETED'
    AND (old.counted_plan <> new.counted_plan OR old.counted_service <> new.counted_service) BEGIN
    UPDATE usage SET instances = instances - 1
    WHERE tenant = old.tenant AND service_id = old.counted_service AND plan_id = old.counted_plan;
    INSERT INTO usage VALUES (new.tenant, new.counted_service, new.counted_plan, 1, 0)
    ON CONFLICT DO UPDATE SET instances = instances + 1;
END;

CREATE TRIGGER binding_made AFTER INSERT ON bindings WHEN new.state <> 'DELETED' BEGIN
    INSERT INTO usage VALUES (new.tenant, new.counted_service, new.counted_plan, 0, 1)
    ON CONFLICT DO UPDATE SET bindings = bindings + 1;
END;

CREATE TRIGGER binding_gone AFTER UPDATE OF state ON bindings
WHEN old.state <> 'DELETED' AND new.state = 'DELETED' BEGIN
    UPDATE usage SET bindings = bindings - 1
    WHERE tenant = old.tenant AND service_id = old.counted_service AND plan_id = old.counted_plan;
END;

-- What operators allow a tenant, or a plan in it (both ids empty: the tenant as a whole).
CREATE TABLE quotas (
    tenant TEXT NOT NULL,
    service_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, service_id, plan_id)
) STRICT, WITHOUT ROWID;
