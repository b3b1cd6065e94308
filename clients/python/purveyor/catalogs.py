"""Following the catalog, whatever happens to the server meanwhile.

Guarantee: the catalog as it is comes first, then each other one that the broker serves while it is followed, over broken
streams and restarts; the same one is not told twice in a row.
Limit: level, not history: a catalog that came and went while the broker was not reached is not told. After `Limits.outage`
seconds without one message the last failure is raised.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from purveyor import decode, encode
from purveyor.errors import PurveyorError
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.watch import Pace, read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from purveyor.connection import Connection
    from purveyor.values import Catalog


async def follow_catalog(connection: Connection, tenant: str) -> AsyncGenerator[Catalog, None]:
    """The catalog, and again when it is another one. Raises PurveyorError; see the module for when."""
    request = messages.WatchCatalogRequest(
        tenant=tenant, heartbeat_interval=encode.duration("heartbeat", connection.limits.heartbeat)
    )
    pace = Pace(connection)
    last: Catalog | None = None
    while True:
        failure = pace.begin()
        try:
            stream = read(connection, connection.stub.WatchCatalog, request, messages.WatchCatalogResponse)
            async with aclosing(stream) as answers:
                async for answer in answers:
                    if answer.HasField("catalog"):
                        catalog = decode.catalog(answer.catalog)
                        if catalog != last:
                            last, pace.attempt = catalog, 0
                            yield catalog
                    pace.hear()  # after the yield: a slow reader is not an outage
        except PurveyorError as error:
            failure = error
        pace.forgive()
        await pace.rest(failure)
