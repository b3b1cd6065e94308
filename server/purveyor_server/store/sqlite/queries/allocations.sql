-- name: allocation_of
SELECT value FROM allocations WHERE owner = ? AND pool = ?;

-- name: taken_allocations
SELECT value FROM allocations WHERE pool = ? AND value BETWEEN ? AND ? ORDER BY value;

-- name: put_allocation
INSERT INTO allocations (pool, value, owner) VALUES (?, ?, ?);

-- name: free_allocation
DELETE FROM allocations WHERE owner = ? AND pool = ?;

-- name: free_allocations
DELETE FROM allocations WHERE owner = ?;

-- name: newest_allocation
SELECT newest FROM allocation_pools WHERE pool = ?;

-- name: put_newest_allocation
INSERT INTO allocation_pools (pool, newest) VALUES (?, ?) ON CONFLICT (pool) DO UPDATE SET newest = excluded.newest;
