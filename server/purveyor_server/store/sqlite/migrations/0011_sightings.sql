-- What sweeps of backends have seen that no record stands for, and how the sweeps went.
-- Times are integer microseconds since 1970-01-01T00:00:00Z; `tried_at` 0 is never.

CREATE TABLE sightings (
    seq INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    uid TEXT NOT NULL,
    state TEXT NOT NULL,
    sweep INTEGER NOT NULL,
    tried_at INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (provider, kind, name)
) STRICT;

CREATE INDEX sightings_by_uid ON sightings (uid);
CREATE INDEX sightings_due ON sightings (provider, state, tried_at, seq);
CREATE INDEX sightings_by_sweep ON sightings (provider, sweep);

CREATE TABLE inventories (
    provider TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
