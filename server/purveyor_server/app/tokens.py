"""The first token of a broker, made in its store while it does not run.

Guarantee: whoever may do this may read the store and its keys as well; the token and its audit record are one command.
"""

from __future__ import annotations

import asyncio
import getpass
import sys
from datetime import timedelta
from pathlib import Path

from purveyor_server.app.folders import prepare_data_dir
from purveyor_server.app.keys import key_source
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.freezes import check_reason
from purveyor_server.kit.clock import SystemClock
from purveyor_server.lifecycle.admin.tokens import MadeToken, TokenWish, make, offline_record
from purveyor_server.security.keyring import unlock
from purveyor_server.security.keytext import KeyFileError
from purveyor_server.store.sqlite.errors import StoreOpenError
from purveyor_server.store.sqlite.store import open_store


def create_token_command(
    name: str,
    roles: tuple[str, ...],
    tenants: tuple[str, ...],
    every_tenant: bool,  # noqa: FBT001 - the CLI's options in order
    ttl: float | None,
    reason: str,
    config: Path | None = None,
    data_dir: Path | None = None,
) -> tuple[int, str]:
    """Make a token; returns the exit code, and the token's text when it is 0."""
    wish = TokenWish(
        name=name,
        roles=roles,
        tenants=tenants,
        every_tenant=every_tenant,
        ttl=timedelta(seconds=ttl) if ttl is not None else None,
    )
    try:
        settings = load(config, dev=config is None, data_dir=data_dir)
        prepare_data_dir(settings.data_dir)
        made = asyncio.run(_make(settings, wish, check_reason(reason)))
    except ConfigError as failure:
        return _refused(Exit.CONFIG, f"the configuration cannot be used:\n{failure}")
    except StoreOpenError as failure:
        return _refused(Exit.STORE, f"no token was made: {failure.message} (a broker that runs: leave --config away)")
    except KeyFileError as failure:
        return _refused(Exit.STORE, f"no token was made: {failure}")
    except StartRefusedError as refusal:
        return _refused(refusal.code, refusal.message)
    except PurveyorError as refusal:
        return _refused(Exit.CONFIG, f"no token was made: {refusal.message}")
    assert made.text is not None, "a token that was made has a text"
    return Exit.OK, made.text.reveal()


async def _make(settings: Settings, wish: TokenWish, reason: str) -> MadeToken:
    clock = SystemClock()
    by = f"offline:{getpass.getuser()}"
    made = make(wish, clock.now(), by)
    store = await open_store(settings.database, clock=clock, settings=settings.store.values())
    try:
        await unlock(store, key_source(settings))  # the record goes into the chain of records
        await store.create_token(made.token, offline_record(made.token, reason, by))
    finally:
        await store.close()
    return made


def _refused(code: int, message: str) -> tuple[int, str]:
    sys.stderr.write(f"purveyor: {message}\n")
    sys.stderr.flush()
    return code, ""
