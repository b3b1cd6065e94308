-- What operators stop and do. Times are integer microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE freezes (
    name TEXT PRIMARY KEY,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX operations_frozen ON operations (seq) WHERE waiting = 'FROZEN';
