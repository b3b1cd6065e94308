-- What looks at backends have come to. `look_at` (microseconds since 1970-01-01T00:00:00Z) is when the next look is due: 0 for an
-- instance that was never looked at, or has just been worked on. `listed` is 1 where operators should see it.

CREATE TABLE observations (
    uid TEXT PRIMARY KEY,
    drift TEXT NOT NULL,
    listed INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX observations_listed ON observations (uid, drift) WHERE listed = 1;

ALTER TABLE instances ADD COLUMN look_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instances_to_look_at ON instances (look_at, uid) WHERE state = 'READY';

CREATE TRIGGER instance_not_looked_at AFTER UPDATE OF state ON instances WHEN new.state = 'DELETED' BEGIN
    DELETE FROM observations WHERE uid = new.uid;
END;
