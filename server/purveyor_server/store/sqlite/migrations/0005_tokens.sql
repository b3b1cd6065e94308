-- Static tokens; of the secret only its hash is in the body. Times are integer microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE tokens (
    token_id TEXT PRIMARY KEY,
    body BLOB NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;
