"""`python -m tests.benchmarks.sides.polite ADDRESS TOKENS_FILE RATE`: callers of several tenants who call now and then.

For each `go SECONDS` on standard input every caller sends RATE reads and RATE/5 writes a second, at times that are fixed before, and
one line of JSON says how long they took. A write is a Provision that waits until its instance is there. Ends with its input.

Guarantee: a time is counted from the moment at which the call was due, so that nothing is hidden by a caller that comes late;
no call is tried again, and one that fails is counted as a failure.
Limit: one process for all of them; what it needs of the processor itself is in the times, on both sides alike.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.house import CALL_SECONDS, provision_request

WRITES = 5  # reads for each write
WAIT_SECONDS = 20


class Caller:
    """One tenant with its token, on a connection of its own."""

    def __init__(self, address: str, tenant: str, token: str) -> None:
        self._tenant = tenant
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._channel = grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._stub: Any = broker_service_pb2_grpc.BrokerServiceStub(self._channel)
        self._instance = ""
        self.reads: list[float] = []
        self.writes: list[float] = []
        self.failures: Counter[str] = Counter()

    async def write(self, due: float) -> None:
        """Order an instance and wait until it is there."""
        request = provision_request(self._tenant)
        request.wait.CopyFrom(Duration(seconds=WAIT_SECONDS))
        answer = await self._sent(self._stub.Provision, request, due, self.writes)
        if answer is not None:
            self._instance = answer.instance.instance_id
            if not answer.operation.done:
                self.failures["not done in time"] += 1

    async def read(self, due: float) -> None:
        """Look at one."""
        request = pb.GetInstanceRequest(tenant=self._tenant, instance_id=self._instance)
        await self._sent(self._stub.GetInstance, request, due, self.reads)

    async def _sent(self, method: Any, request: Any, due: float, times: list[float]) -> Any:
        try:
            answer = await method(request, metadata=self._metadata, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self.failures[f"{error.code().name}: {error.details()}"[:100]] += 1
            return None
        times.append((time.monotonic() - due) * 1000)
        return answer

    async def run(self, began: float, seconds: float, rate: float) -> None:
        """Call on time, whatever became of the calls before."""
        self.reads, self.writes, self.failures = [], [], Counter()
        calls = []
        for number in range(int(seconds * rate)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            calls.append(asyncio.create_task(self.read(due)))
            if number % WRITES == 0:
                calls.append(asyncio.create_task(self.write(due)))
        await asyncio.gather(*calls)

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close(None)


async def run(address: str, tokens: dict[str, str], rate: float) -> None:
    """See the module."""
    callers = [Caller(address, tenant, token) for tenant, token in tokens.items()]
    await asyncio.gather(*(caller.write(time.monotonic()) for caller in callers))
    gc.freeze()
    print(json.dumps({"ready": sum(len(caller.writes) for caller in callers)}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        seconds, began = float(line.split()[1]), time.monotonic() + 0.05
        spread = 1 / rate / len(callers)
        await asyncio.gather(*(one.run(began + place * spread, seconds, rate) for place, one in enumerate(callers)))
        failures = sum((caller.failures for caller in callers), Counter[str]())
        reads = [took for caller in callers for took in caller.reads]
        writes = [took for caller in callers for took in caller.writes]
        print(json.dumps({"reads": reads, "writes": writes, "failures": failures}), flush=True)
    for caller in callers:
        await caller.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), float(sys.argv[3])))
