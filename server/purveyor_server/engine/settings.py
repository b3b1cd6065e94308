"""Every number of the engine, with its unit."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from purveyor_server.kit.backoff import Backoff


class EngineSettings(msgspec.Struct, frozen=True):
    """Bounds of running steps, leases and retries. Durations in seconds unless they say otherwise."""

    running: int = 32  # operations working at once
    per_provider: int = 24
    per_tenant: int = 8
    reserved: int = 8  # further slots for deprovision, unbind and clean-up alone
    lease: timedelta = timedelta(seconds=30)
    poll: float = 1.0  # how often due operations are looked for without a wake-up
    settle_poll: float = 0.5  # how soon an unsettled step is asked again
    hold_poll: float = 30.0  # how soon a held operation is looked at again
    progress_interval: float = 1.0  # at most one stored progress per operation and interval
    max_attempts: int = 20  # failed attempts of one step before the operation gives up
    retry: Backoff = Backoff(first=0.5, factor=2.0, ceiling=60.0)
    cleanup_retry: Backoff = Backoff(first=30.0, factor=2.0, ceiling=3600.0)
    revocation_retry: Backoff = Backoff(first=60.0, factor=2.0, ceiling=3600.0)  # between UNBINDs of one binding
    cleanup_budget: float = 600.0  # of one CLEANUP operation
    rollback_budget: float = 600.0
    rights_poll: float = 5.0  # how soon an operation that lacks a right in the backend is tried again
    stop_grace: float = 10.0
