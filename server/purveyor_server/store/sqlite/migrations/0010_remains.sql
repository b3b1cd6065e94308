-- The operation that caused another one, which never changes; and the failed operations whose remains are kept for an operator.

ALTER TABLE operations ADD COLUMN parent TEXT NOT NULL DEFAULT '';
UPDATE operations SET parent = coalesce(nullif(json_extract(CAST(body AS TEXT), '$.parent'), ''), origin);
CREATE INDEX operations_of_parent ON operations (parent, operation_id) WHERE parent <> '';
CREATE INDEX operations_held ON operations (subject, operation_id) WHERE backlog = 0 AND waiting = 'HELD';
