-- Numbers that are given to at most one owner at a time, as ports: by pool. An owner (a uid) has one of each pool.
CREATE TABLE allocations (
    pool TEXT NOT NULL,
    value INTEGER NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (pool, value)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX allocations_of ON allocations (owner, pool);

-- The number that was given last: the next one is looked for behind it, so that a freed one rests as long as possible.
CREATE TABLE allocation_pools (
    pool TEXT PRIMARY KEY,
    newest INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
