"""What is to be seen of a dedicated server: its files, its process, its settings, and its database in there.

Guarantee: changes nothing, starts nothing. STOPPED and DEGRADED are differences in words: `the server is stopped`, `the
server does not take connections`.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift
from purveyor_server.providers.contract import Known, Observed, ProviderError
from purveyor_server.providers.postgresql import tuning
from purveyor_server.providers.postgresql.host import CLUSTER, Cluster, Host
from purveyor_server.providers.postgresql.observation import MAX_DIFFERENCES, observe_database
from purveyor_server.providers.postgresql.pieces import Wanted
from purveyor_server.providers.postgresql.settings import (
    DedicatedSettings,
    SharedParameters,
    read_as,
    settings_of,
)

SHOWN = "SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1)"
# What is compared with the running server; the rest is compared as text in the file.
IN_MEMORY = ("max_connections", "reserved_connections", "shared_buffers", "work_mem", "temp_file_limit", "ssl")


async def observe_dedicated(host: Host, instance: Known) -> Observed:
    """Drift of `instance`: MISSING without its files or its database, DRIFTED with any difference."""
    plan = settings_of(instance.settings, DedicatedSettings)
    wanted = Wanted(plan, read_as(SharedParameters, instance.settings.parameters))
    cluster = host.cluster(outside_name(CLUSTER, instance.uid))
    state = cluster.state
    if state is None or not cluster.folders.data.exists():
        return _observed(Drift.MISSING, ["the files of the server are gone"], healthy=False)
    settings = tuning.wanted_settings(host.config, cluster.folders, state.port, plan, wanted.connection_limit)
    differences = await asyncio.to_thread(_compare_files, cluster, settings)
    if not cluster.runs:
        return _observed(Drift.DRIFTED, [*differences, "the server is stopped"], healthy=False)
    try:
        differences += await _compare_settings(cluster, settings)
        inside = await observe_database(cluster.sessions, instance, wanted)
    except ProviderError:
        return _observed(Drift.DRIFTED, [*differences, "the server does not take connections"], healthy=False)
    differences += inside.differences
    drift = inside.drift if inside.drift is Drift.MISSING else Drift.DRIFTED if differences else Drift.IN_SYNC
    return _observed(drift, differences, healthy=inside.healthy)


def _observed(drift: Drift, differences: list[str], *, healthy: bool) -> Observed:
    return Observed(drift, healthy, datetime.now(UTC), tuple(differences[:MAX_DIFFERENCES]))


def _compare_files(cluster: Cluster, settings: dict[str, str]) -> list[str]:
    files = tuning.files_of(cluster.host.config, settings)
    changed = tuning.differing(cluster.folders, files)
    state = cluster.need_state()
    build = cluster.build(state)
    return [f"the file {name} is not as the plan says" for name in changed] + (
        [f"the server runs with {state.build}, configured is {build}: an update restarts it"]
        if state.build and state.build != build
        else []
    )


async def _compare_settings(cluster: Cluster, settings: dict[str, str]) -> list[str]:
    async with cluster.sessions.admin() as session:
        rows = await session.ask(SHOWN, list(IN_MEMORY))
    return [
        f"{row['name']} is {row['value']}, not {settings[row['name']]}"
        for row in sorted(rows, key=lambda row: str(row["name"]))
        if _plain(row["value"]) != _plain(settings[row["name"]])
    ]


def _plain(value: str) -> str:
    """PostgreSQL shows sizes in the largest unit that fits: 1024MB is 1GB."""
    for unit, factor in (("kB", 1), ("MB", 1024), ("GB", 1024**2), ("TB", 1024**3)):
        if value.endswith(unit) and value.removesuffix(unit).isdecimal():
            return f"{int(value.removesuffix(unit)) * factor}kB"
    return value
