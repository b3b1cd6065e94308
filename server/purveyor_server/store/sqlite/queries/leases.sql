-- Bindings by their times: each column is set only while it means something.

-- name: expiry
SELECT body FROM bindings
WHERE expires_at IS NOT NULL AND (expires_at, uid) > (?1, ?2) AND expires_at <= ?3 AND (?4 IS NULL OR tenant = ?4)
ORDER BY expires_at, uid LIMIT ?5;

-- name: rotation
SELECT body FROM bindings
WHERE rotate_at IS NOT NULL AND (rotate_at, uid) > (?1, ?2) AND rotate_at <= ?3 AND (?4 IS NULL OR tenant = ?4)
ORDER BY rotate_at, uid LIMIT ?5;

-- name: revocation
SELECT body FROM bindings
WHERE retry_at IS NOT NULL AND (retry_at, uid) > (?1, ?2) AND retry_at <= ?3 AND (?4 IS NULL OR tenant = ?4)
ORDER BY retry_at, uid LIMIT ?5;

-- name: rotated
SELECT count(*) FROM bindings WHERE rotated_at > ?;
