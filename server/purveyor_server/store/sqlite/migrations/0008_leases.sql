-- When bindings end, are to be rotated, are to be tried again, and were made by a rotation of the broker's own. A column is set
-- only while it means something, so that an index holds what may be due and nothing else.

ALTER TABLE bindings ADD COLUMN expires_at INTEGER;
ALTER TABLE bindings ADD COLUMN rotate_at INTEGER;
ALTER TABLE bindings ADD COLUMN retry_at INTEGER;
ALTER TABLE bindings ADD COLUMN rotated_at INTEGER;

CREATE INDEX bindings_ending ON bindings (expires_at, uid) WHERE expires_at IS NOT NULL;
CREATE INDEX bindings_rotating ON bindings (rotate_at, uid) WHERE rotate_at IS NOT NULL;
CREATE INDEX bindings_blocked ON bindings (retry_at, uid) WHERE retry_at IS NOT NULL;
CREATE INDEX bindings_rotated ON bindings (rotated_at) WHERE rotated_at IS NOT NULL;

-- The body has the exact time; a column that is less than a second early is looked at twice.
UPDATE bindings SET expires_at = unixepoch(json_extract(CAST(body AS TEXT), '$.expires_at')) * 1000000
WHERE state IN ('ACTIVE', 'EXPIRED') AND json_extract(CAST(body AS TEXT), '$.expires_at') IS NOT NULL;

-- What was parked before bindings knew when to be tried again is tried at once.
UPDATE bindings SET retry_at = 0 WHERE state = 'REVOCATION_BLOCKED';
