"""Refused calls are on record once the broker has stopped."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from pathlib import Path

import grpc
import pytest

from purveyor.v1.broker_service_pb2 import GetInstanceRequest
from purveyor.v1.broker_service_pb2_grpc import BrokerServiceStub
from tests.unit.app_process import TIMEOUT, Process, Site

CALLS = 50


async def test_calls_of_nobody_are_one_record_with_their_count(tmp_path: Path) -> None:
    site = Site(tmp_path, '[identity]\nlocal = "none"\n')
    with Process(site) as process:
        async with grpc.aio.insecure_channel(site.socket) as channel:
            stub = BrokerServiceStub(channel)
            for _ in range(CALLS):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub.GetInstance(GetInstanceRequest(tenant="acme", instance_id="i"), timeout=TIMEOUT)
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await asyncio.to_thread(process.send, signal.SIGTERM) == 0

    connection = sqlite3.connect(site.data / "purveyor.db")
    (row,) = connection.execute(
        "SELECT json_extract(CAST(body AS TEXT), '$.outcome', '$.details.count', '$.resource', '$.tenant') FROM audit"
        " WHERE json_extract(CAST(body AS TEXT), '$.action') <> 'ApplyCatalog'"
    ).fetchall()
    connection.close()
    assert row == (f'["UNAUTHENTICATED",{CALLS},"method/GetInstance","acme"]',)
