-- Instances by the platform that ordered them. `orphan_since` is when it first left one out of an inventory, `orphan_seen` when it
-- last did (microseconds since 1970-01-01T00:00:00Z; both NULL for what is named).

ALTER TABLE instances ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE instances ADD COLUMN orphan_since INTEGER;
ALTER TABLE instances ADD COLUMN orphan_seen INTEGER;
CREATE INDEX instances_of_owner ON instances (tenant, owner, uid) WHERE owner <> '' AND state <> 'DELETED';
CREATE INDEX instances_orphaned ON instances (uid) WHERE orphan_since IS NOT NULL AND state <> 'DELETED';

CREATE TABLE platform_inventories (
    tenant TEXT NOT NULL,
    owner TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, owner)
) STRICT, WITHOUT ROWID;
