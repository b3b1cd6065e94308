"""What `purveyor serve` and `purveyor config check` do, as functions that return exit codes.

Guarantee: a start that is refused prints one message to standard error and returns its own code; SIGTERM and SIGINT stop
gracefully, a second one (half a second later or more) ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from purveyor_server.app.checks import BUILT_IN, read_catalog
from purveyor_server.app.dump import dump_tasks
from purveyor_server.app.folders import prepare_data_dir
from purveyor_server.app.identity import check_identity
from purveyor_server.app.keys import key_source
from purveyor_server.app.listening import check_tls
from purveyor_server.app.parts import Broker
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit import failpoints
from purveyor_server.kit.clock import SystemClock
from purveyor_server.kit.collector import calm, without_collecting
from purveyor_server.providers.registry import InstalledFactories
from purveyor_server.security import keyring, keytext
from purveyor_server.security.keyfile import KeyFile
from purveyor_server.store.sqlite.errors import StoreOpenError
from purveyor_server.telemetry import logs

_log = structlog.get_logger(__name__)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds. A terminal and a wrapper such as timeout(1) both pass one wish on: two signals at once are one.
SECOND_AFTER = 0.5


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
        check_tls(settings, SystemClock().now())
        check_identity(settings)
        file = read_catalog(settings.catalog, InstalledFactories(), os.environ)
    except ConfigError as failure:
        return _refuse(StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}"))
    plans = sum(len(service.plans) for service in file.services)
    name = settings.catalog or BUILT_IN
    services = len(file.services)
    counts = f"{services} service{'' if services == 1 else 's'}, {plans} plan{'' if plans == 1 else 's'}"
    sys.stdout.write(f"the configuration is good: {counts} in {name}\n")
    return Exit.OK


def restore_command(
    file: Path,
    config: Path | None = None,
    dev: bool = False,  # noqa: FBT001, FBT002 - the CLI's options in order
    data_dir: Path | None = None,
) -> int:
    """Put a backup in the place of the store; prints what was done and what comes next. The broker must not run."""
    from purveyor_server.store.sqlite.restore import restore  # noqa: PLC0415 - a start does not need it

    try:
        settings = load(config, dev=dev, data_dir=data_dir)
        prepare_data_dir(settings.data_dir)
        source = key_source(settings)
        done = restore(file, settings.database, SystemClock(), partial(keyring.prove, source, source.load()))
    except ConfigError as failure:
        return _refuse(StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}"))
    except StoreOpenError as failure:
        return _refuse(StartRefusedError(Exit.STORE, f"nothing was restored: {failure.message}"))
    except keytext.KeyFileError as failure:
        return _refuse(
            StartRefusedError(Exit.STORE, f"nothing was restored: the keys do not open the backup: {failure}")
        )
    except StartRefusedError as refusal:
        return _refuse(refusal)
    recovery = done.recovery
    kept = f"the store that was there is now {done.aside}\n" if done.aside else ""
    sys.stdout.write(
        f"restored store {done.store_id} as of {recovery.taken_at:%Y-%m-%d %H:%M:%SZ} (revision {recovery.revision})\n{kept}"
        "no automatic deletion happens and no earlier operation goes on until you say so:\n"
        "start the broker, look at `purveyor recover`, end with `purveyor recover --finish --reason TEXT`\n"
    )
    return Exit.OK


def new_provider_command(name: str, into: Path) -> int:
    """Write a provider package to go on from; prints its folder, and what comes next to standard error."""
    from purveyor_server.providers.skeleton import write_skeleton  # noqa: PLC0415 - a start does not need it

    try:
        folder = write_skeleton(name, into)
    except PurveyorError as error:
        return _refuse(StartRefusedError(Exit.CONFIG, f"no provider was written: {error.message}"))
    sys.stdout.write(f"{folder}\n")
    sys.stderr.write(f"next: cd {folder}; pip install -e '.[dev]'; pytest; then README.md says what to replace\n")
    return Exit.OK


def new_key_command(
    label: str = "",
    print_it: bool = False,  # noqa: FBT001, FBT002 - the CLI's options in order
    config: Path | None = None,
    dev: bool = False,  # noqa: FBT001, FBT002 - as above
    data_dir: Path | None = None,
) -> int:
    """Put a fresh key first in the key file, or print one; prints its label and what comes next."""
    if print_it:
        sys.stdout.write(f"{keytext.line_of(label or keytext.FIRST_LABEL, keytext.fresh_key())}\n")
        return Exit.OK
    try:
        source = key_source(load(config, dev=dev, data_dir=data_dir))
        if not isinstance(source, KeyFile):
            return _refuse(StartRefusedError(Exit.CONFIG, f"{source.name} is not for this command: use --print"))
        made = source.add(label)
    except ConfigError as failure:
        return _refuse(StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}"))
    except keytext.KeyFileError as failure:
        return _refuse(StartRefusedError(Exit.STORE, f"no key was made: {failure}"))
    sys.stdout.write(f"{made}\n")
    sys.stderr.write(
        f"{source.name} has the new key {made}; next: copy the file to where its copy is kept, then\n"
        "`purveyor keys rotate --reason TEXT`\n"
    )
    return Exit.OK


async def serve(settings: Settings) -> int:
    """Run a broker until a stop signal; returns the exit code."""
    stopping = StopSignals()
    stopping.listen(asyncio.get_running_loop())
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, dump_tasks)
    if failpoints.armed:
        _log.warning("failpoints are armed: this process may break itself on purpose")
    broker = Broker(settings, ask_to_stop=stopping.ask)
    if settings.catalog is not None:  # else a terminal that goes away ends the broker, as ever
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, broker.reload)
    try:
        with without_collecting():
            await broker.start()
    except StartRefusedError as refusal:
        return _refuse(refusal)
    calm()
    await stopping.wait()
    await broker.stop()
    return Exit.OK


class StopSignals:
    """The first signal asks for a graceful stop; another one, SECOND_AFTER later or more, ends the process at once."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._asked_at = 0.0
        self._asked = asyncio.Event()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the stop signals of this process."""
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self.take, number)

    async def wait(self) -> None:
        """Wait for the first one."""
        await self._asked.wait()

    def ask(self) -> None:
        """Stop as the first signal does: an operator asked for it."""
        if not self._asked.is_set():
            self._asked_at = self._monotonic()
            self._asked.set()
            _log.info("stopping", signal="drain")

    def take(self, number: signal.Signals) -> None:
        """React to one signal."""
        if not self._asked.is_set():
            self._asked_at = self._monotonic()
            self._asked.set()
            _log.info("stopping", signal=number.name)
        elif self._monotonic() - self._asked_at >= SECOND_AFTER:
            # Nothing is lost: the next start finds everything where a crash would have left it.
            os._exit(128 + number)


def _refuse(refusal: StartRefusedError) -> int:
    sys.stderr.write(f"purveyor: {refusal.message}\n")
    sys.stderr.flush()
    return refusal.code
