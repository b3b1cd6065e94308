-- The first schema. Columns hold keys, filters and what indexes need; `body` holds the whole record as JSON.
-- Times are integer microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- `seq` orders incarnations by insertion: ids carry a clock, and a clock may jump.
CREATE TABLE instances (
    seq INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    state TEXT NOT NULL,
    service_id TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    last_operation TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    body BLOB NOT NULL
) STRICT;

-- A living incarnation and its tombstones are in two partial indexes, so that a new one touches one of them: pages
-- written per commit are what bounds the rate of accepts.
CREATE UNIQUE INDEX instances_one_alive ON instances (tenant, instance_id) WHERE state <> 'DELETED';
CREATE INDEX instances_dead ON instances (tenant, instance_id) WHERE state = 'DELETED';
CREATE INDEX instances_by_uid ON instances (tenant, uid, state);
CREATE INDEX instances_gone ON instances (deleted_at) WHERE state = 'DELETED';

CREATE TABLE bindings (
    seq INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    instance_uid TEXT NOT NULL,
    binding_id TEXT NOT NULL,
    state TEXT NOT NULL,
    last_operation TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted_at INTEGER,
    body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX bindings_one_alive ON bindings (instance_uid, binding_id) WHERE state <> 'DELETED';
CREATE INDEX bindings_dead ON bindings (instance_uid, binding_id) WHERE state = 'DELETED';
CREATE INDEX bindings_by_uid ON bindings (tenant, uid, state);
CREATE INDEX bindings_of_instance ON bindings (tenant, instance_id, uid, state);
CREATE INDEX bindings_gone ON bindings (deleted_at) WHERE state = 'DELETED';

-- `subject` is the uid whose secrets the operation touches: the binding's, else the instance's.
-- `backlog`: 0 ended, 1 running or waiting for a slot, 2 waiting for anything else.
-- `ready` is 1 once `due_at` was seen to have passed: it makes FIFO within a tenant an index walk at any backlog.
CREATE TABLE operations (
    seq INTEGER PRIMARY KEY,
    operation_id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    instance_uid TEXT NOT NULL,
    binding_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    verb TEXT NOT NULL,
    state TEXT NOT NULL,
    backlog INTEGER NOT NULL,
    provider TEXT NOT NULL,
    waiting TEXT NOT NULL,
    due_at INTEGER,
    ready INTEGER NOT NULL,
    lease_owner TEXT NOT NULL,
    request_principal TEXT,
    request_method TEXT,
    request_id TEXT,
    origin TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX operations_by_tenant ON operations (tenant, operation_id);
CREATE INDEX operations_of_instance ON operations (instance_uid, operation_id);
CREATE INDEX operations_of_subject ON operations (subject);
CREATE INDEX operations_unfinished ON operations (instance_uid, operation_id, backlog) WHERE backlog > 0;
CREATE UNIQUE INDEX operations_by_request ON operations (request_id, tenant, request_principal, request_method)
    WHERE request_id IS NOT NULL;
CREATE INDEX operations_ready ON operations (tenant, provider, operation_id) WHERE ready = 1;
CREATE INDEX operations_ready_removals ON operations (tenant, provider, operation_id)
    WHERE ready = 1 AND verb IN ('DEPROVISION', 'UNBIND', 'CLEANUP');
CREATE INDEX operations_asleep ON operations (due_at) WHERE due_at IS NOT NULL AND ready = 0;
CREATE INDEX operations_leased ON operations (lease_owner) WHERE lease_owner <> '';
CREATE INDEX operations_in_circuit ON operations (provider) WHERE waiting = 'CIRCUIT';
CREATE INDEX operations_origins ON operations (origin) WHERE origin <> '' AND backlog > 0;
CREATE INDEX operations_ended ON operations (ended_at, seq) WHERE backlog = 0;

CREATE TABLE operation_blocks (
    blocker TEXT NOT NULL,
    blocked TEXT NOT NULL,
    PRIMARY KEY (blocker, blocked)
) STRICT, WITHOUT ROWID;

CREATE INDEX operation_blocks_of ON operation_blocks (blocked);

CREATE TABLE steps (
    operation_id TEXT NOT NULL REFERENCES operations (operation_id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (operation_id, place)
) STRICT;

CREATE TABLE secrets (
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    sealed BLOB NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE unique_marks (
    field TEXT NOT NULL,
    digest TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (field, digest)
) STRICT, WITHOUT ROWID;

CREATE INDEX unique_marks_of ON unique_marks (owner);

CREATE TABLE plans (
    digest TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE catalogs (
    version INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    body TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    revision INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    binding_id TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
