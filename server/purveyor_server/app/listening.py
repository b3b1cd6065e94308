"""Listeners as the gRPC face takes them, and whether their files are good before anything starts.

Guarantee: every bad file of every listener is named in one `ConfigError`, by the path of its setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from purveyor_server.config.listening import Listeners
from purveyor_server.config.problems import ConfigError, Problem
from purveyor_server.config.settings import Settings
from purveyor_server.rpc import TlsListen
from purveyor_server.security.tls import TIME, TlsFileError


def listens(section: Listeners) -> list[str | TlsListen]:
    """The plain listeners, then those with TLS."""
    plain = [address.text for address in section.addresses]
    return [*plain, *(TlsListen(tls.address.text, tls.files, tls.crl_expired == "refuse") for tls in section.tls)]


def check_tls(settings: Settings, now: datetime) -> None:
    """Read the files of every TLS listener. Raises ConfigError."""
    problems = [*_problems("listen", settings.listen, now), *_problems("admin", settings.admin, now)]
    if problems:
        raise ConfigError(problems)


def _problems(name: str, section: Listeners, now: datetime) -> Iterator[Problem]:
    if not section.tls:
        return
    from purveyor_server.security.certificates import read_material  # noqa: PLC0415 - loaded only where there is TLS

    for number, listener in enumerate(section.tls):
        here = f"{name}.tls[{number}]"
        try:
            material = read_material(listener.files, now)
        except TlsFileError as failure:
            yield Problem(f"{here}.{failure.field}", f"{failure.path}: {failure.why}")
            continue
        due = material.next_update
        if listener.crl_expired == "refuse" and due is not None and now >= due:
            yield Problem(
                f"{here}.crl", f"{listener.crl}: is out of date since {due:{TIME}}, and crl_expired is refuse"
            )
