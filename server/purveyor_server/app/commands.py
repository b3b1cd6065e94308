"""What `purveyor serve` and `purveyor config check` do, as functions that return exit codes.

Guarantee: a start that is refused prints one message to standard error and returns its own code; SIGTERM and SIGINT stop
gracefully, a second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

import structlog

from purveyor_server.app.checks import BUILT_IN, read_catalog
from purveyor_server.app.parts import Broker
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.kit import failpoints
from purveyor_server.providers.registry import installed_factories
from purveyor_server.telemetry import logs

_log = structlog.get_logger(__name__)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve_command(config: Path | None = None, dev: bool = False, data_dir: Path | None = None) -> int:  # noqa: FBT001, FBT002 - the CLI's options in order
    """Serve until a signal; returns the exit code. Without `dev` a catalog must be configured."""
    try:
        settings = load(config, dev=dev, data_dir=data_dir)
    except ConfigError as failure:
        return _refuse(StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}"))
    logs.configure(settings.log.format, settings.log.level)
    return asyncio.run(serve(settings))


def check_command(config: Path | None = None, dev: bool = False) -> int:  # noqa: FBT001, FBT002 - as above
    """Judge settings and catalog without starting anything; prints what is wrong, or that nothing is."""
    try:
        settings = load(config, dev=dev)
        with tempfile.TemporaryDirectory() as folder:
            file = read_catalog(settings.catalog, installed_factories(), Path(folder), os.environ)
    except ConfigError as failure:
        return _refuse(StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}"))
    plans = sum(len(service.plans) for service in file.services)
    name = settings.catalog or BUILT_IN
    sys.stdout.write(f"the configuration is good: {len(file.services)} services, {plans} plans in {name}\n")
    return Exit.OK


async def serve(settings: Settings) -> int:
    """Run a broker until a stop signal; returns the exit code."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, _on_signal, stopping, number)
    if failpoints.armed:
        _log.warning("failpoints are armed: this process may break itself on purpose")
    broker = Broker(settings)
    try:
        await broker.start()
    except StartRefusedError as refusal:
        return _refuse(refusal)
    await stopping.wait()
    await broker.stop()
    return Exit.OK


def _on_signal(stopping: asyncio.Event, number: signal.Signals) -> None:
    if stopping.is_set():
        # Nothing is lost: the next start finds everything where a crash would have left it.
        os._exit(128 + number)
    _log.info("stopping", signal=number.name)
    stopping.set()


def _refuse(refusal: StartRefusedError) -> int:
    sys.stderr.write(f"purveyor: {refusal.message}\n")
    sys.stderr.flush()
    return refusal.code
