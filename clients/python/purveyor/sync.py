"""The blocking clients: the asyncio ones, for threads.

Guarantee: as `purveyor.client` and `purveyor.admin`; one client may be used by many threads at once. KeyboardInterrupt and time-outs cancel the call
underneath; an operation that was accepted goes on.
Limit: see `purveyor.bridge` for forks. Code that runs in an event loop uses `Client`: a blocking call would stop that loop.
"""

from __future__ import annotations

from purveyor.admin import AdminClient
from purveyor.blocking import BlockingClient, BlockingObject, mirror
from purveyor.client import Client
from purveyor.operations import OperationHandle

SyncOperationHandle = mirror(OperationHandle, BlockingObject, {})
SyncClient = mirror(Client, BlockingClient, {OperationHandle: SyncOperationHandle})
SyncAdminClient = mirror(AdminClient, BlockingClient, {})
