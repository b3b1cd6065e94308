-- Campaigns and their instances.

-- name: campaign
SELECT body FROM campaigns WHERE campaign_id = ?;

-- name: by_request
SELECT body FROM campaigns WHERE principal = ? AND request_id = ?;

-- name: live
SELECT body FROM campaigns INDEXED BY campaigns_live WHERE live = 1 AND campaign_id > ? ORDER BY campaign_id LIMIT ?;

-- name: live_counts
SELECT json_extract(CAST(body AS TEXT), '$.state') AS state, count(*)
FROM campaigns INDEXED BY campaigns_live WHERE live = 1 GROUP BY state;

-- The newest first; an empty key stands for the beginning.
-- name: campaigns
SELECT body FROM campaigns WHERE ?1 = '' OR campaign_id < ?1 ORDER BY campaign_id DESC LIMIT ?2;

-- name: put_campaign
INSERT INTO campaigns (campaign_id, live, principal, request_id, ended_at, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (campaign_id) DO UPDATE SET live = excluded.live, ended_at = excluded.ended_at, body = excluded.body;

-- name: put_item
INSERT INTO campaign_items (campaign_id, place, state, not_before, body) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (campaign_id, place) DO UPDATE
SET state = excluded.state, not_before = excluded.not_before, body = excluded.body;

-- name: items_named
SELECT body FROM campaign_items WHERE campaign_id = ? AND place IN (SELECT value FROM json_each(?)) ORDER BY place;

-- name: items
SELECT body FROM campaign_items WHERE campaign_id = ? AND place > ? ORDER BY place LIMIT ?;

-- name: items_in_state
SELECT body FROM campaign_items WHERE campaign_id = ? AND state = ? AND place > ? ORDER BY place LIMIT ?;

-- Those whose turn it is: what had to wait is passed over until its time.
-- name: items_due
SELECT body FROM campaign_items
WHERE campaign_id = ? AND state = 'PENDING' AND (not_before IS NULL OR not_before <= ?) ORDER BY place LIMIT ?;

-- A bounded part of the instances that count as of a plan: the uid of each, and the body of those of the tenant.
-- name: part
SELECT uid, CASE WHEN ?4 = '' OR tenant = ?4 THEN body END
FROM instances WHERE counted_service = ?2 AND counted_plan = ?3 AND uid > ?1 AND state <> 'DELETED' ORDER BY uid LIMIT ?5;

-- name: total
SELECT coalesce(sum(instances), 0) FROM usage WHERE service_id = ?1 AND plan_id = ?2 AND (?3 = '' OR tenant = ?3);

-- name: gone_items
DELETE FROM campaign_items WHERE (campaign_id, place) IN (
    SELECT i.campaign_id, i.place FROM campaigns AS c JOIN campaign_items AS i ON i.campaign_id = c.campaign_id
    WHERE c.live = 0 AND c.ended_at < ?1 LIMIT ?2);

-- name: gone_campaigns
DELETE FROM campaigns WHERE live = 0 AND ended_at < ?1
    AND NOT EXISTS (SELECT 1 FROM campaign_items AS i WHERE i.campaign_id = campaigns.campaign_id);
