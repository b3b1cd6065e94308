-- The chain of audit records. Times are integer microseconds since 1970-01-01T00:00:00Z.
-- Records of the time before have neither key nor chain value.

ALTER TABLE audit ADD COLUMN key TEXT;
ALTER TABLE audit ADD COLUMN chain BLOB;

CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL,
    began INTEGER NOT NULL,
    key TEXT NOT NULL,
    chain BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;

CREATE TABLE audit_cuts (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    key TEXT NOT NULL,
    chain BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT;
