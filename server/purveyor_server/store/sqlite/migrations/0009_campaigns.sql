-- Campaigns and their instances. `live` is 1 while something may still begin, or runs. Times are integer microseconds since
-- 1970-01-01T00:00:00Z.

CREATE TABLE campaigns (
    campaign_id TEXT PRIMARY KEY,
    live INTEGER NOT NULL,
    principal TEXT NOT NULL,
    request_id TEXT,
    ended_at INTEGER,
    body BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX campaigns_live ON campaigns (campaign_id) WHERE live = 1;
CREATE UNIQUE INDEX campaigns_by_request ON campaigns (principal, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX campaigns_ended ON campaigns (ended_at) WHERE live = 0;

CREATE TABLE campaign_items (
    campaign_id TEXT NOT NULL REFERENCES campaigns (campaign_id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    state TEXT NOT NULL,
    not_before INTEGER,
    body BLOB NOT NULL,
    PRIMARY KEY (campaign_id, place)
) STRICT, WITHOUT ROWID;

CREATE INDEX campaign_items_by_state ON campaign_items (campaign_id, state, place);
