-- Who applied a catalog, why, and by which request. `origin` is FILE or CALL.

ALTER TABLE catalogs ADD COLUMN principal TEXT NOT NULL DEFAULT '';
ALTER TABLE catalogs ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE catalogs ADD COLUMN origin TEXT NOT NULL DEFAULT 'FILE';
ALTER TABLE catalogs ADD COLUMN request_id TEXT NOT NULL DEFAULT '';

CREATE UNIQUE INDEX catalogs_by_request ON catalogs (principal, request_id) WHERE request_id <> '';
CREATE INDEX catalogs_of_file ON catalogs (version) WHERE origin = 'FILE';

-- The instances of a plan, page by page, however many others there are.
CREATE INDEX instances_of_plan ON instances (counted_service, counted_plan, uid) WHERE state <> 'DELETED';
