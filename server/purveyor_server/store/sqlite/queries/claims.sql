-- Leases: what is due, whose it is, and how it is handed out.

-- name: anything_asleep_due
SELECT 1 FROM operations INDEXED BY operations_asleep
WHERE due_at IS NOT NULL AND ready = 0 AND due_at <= ? LIMIT 1;

-- name: promote
UPDATE operations SET ready = 1 WHERE seq IN (
    SELECT seq FROM operations INDEXED BY operations_asleep
    WHERE due_at IS NOT NULL AND ready = 0 AND due_at <= ? ORDER BY due_at LIMIT ?);

-- name: next_tenant
SELECT tenant, provider FROM operations INDEXED BY operations_ready
WHERE ready = 1 AND tenant > ? ORDER BY tenant, provider LIMIT 1;

-- name: next_provider
SELECT provider FROM operations INDEXED BY operations_ready
WHERE ready = 1 AND tenant = ? AND provider > ? ORDER BY provider LIMIT 1;

-- name: ready
SELECT operation_id FROM operations INDEXED BY operations_ready
WHERE ready = 1 AND tenant = ? AND provider = ? ORDER BY operation_id LIMIT ?;

-- name: next_tenant_removals
SELECT tenant, provider FROM operations INDEXED BY operations_ready_removals
WHERE ready = 1 AND verb IN ('DEPROVISION', 'UNBIND', 'CLEANUP') AND tenant > ? ORDER BY tenant, provider LIMIT 1;

-- name: next_provider_removals
SELECT provider FROM operations INDEXED BY operations_ready_removals
WHERE ready = 1 AND verb IN ('DEPROVISION', 'UNBIND', 'CLEANUP') AND tenant = ? AND provider > ?
ORDER BY provider LIMIT 1;

-- name: ready_removals
SELECT operation_id FROM operations INDEXED BY operations_ready_removals
WHERE ready = 1 AND verb IN ('DEPROVISION', 'UNBIND', 'CLEANUP') AND tenant = ? AND provider = ?
ORDER BY operation_id LIMIT ?;

-- name: leased_by
SELECT body FROM operations WHERE lease_owner = ? AND lease_owner <> '' ORDER BY operation_id;

-- The planner would walk every operation there is, ended ones too, to save the sorting of a few.
-- name: leased
SELECT body FROM operations INDEXED BY operations_leased WHERE lease_owner <> '' ORDER BY operation_id;

-- name: in_circuit
SELECT body FROM operations WHERE provider = ? AND waiting = 'CIRCUIT' ORDER BY seq LIMIT ?;

-- name: frozen
SELECT body FROM operations INDEXED BY operations_frozen WHERE waiting = 'FROZEN' ORDER BY seq LIMIT ?;
