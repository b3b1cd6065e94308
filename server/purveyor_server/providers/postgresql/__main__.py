"""`python -m purveyor_server.providers.postgresql start|stop|status|remove DIR`: the servers of a provider's data directory.

`start` and `status` are about the embedded server; `stop` and `remove` also end the dedicated servers, for those who take a
whole broker away.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import structlog

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Json
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.postgresql.config import DedicatedConfig, LimitsConfig
from purveyor_server.providers.postgresql.dedicated import end_all
from purveyor_server.providers.postgresql.embedded import EmbeddedServer, stop
from purveyor_server.providers.postgresql.host import Host


class Folder:
    """A provider's environment outside of a broker: its folder and nothing else."""

    name = ""
    store_id = ""

    def __init__(self, folder: str) -> None:
        self.data_dir = str(Path(folder).absolute())

    def reference(self, value: Json) -> Secret:  # noqa: ARG002 - the protocol's
        """There is nobody to resolve it."""
        raise invalid("reference", "is not resolved here")


def main(arguments: list[str]) -> int:
    """Entry of `python -m`; exit code 0 done, 1 not running, 2 wrong use."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    match arguments:
        case ["start", folder]:
            return _say(f"running on port {EmbeddedServer(folder).start().port}", code=0)
        case ["stop", folder]:
            dedicated = end_all(_host(folder), remove=False)
            return _say("stopped", code=0) if stop(folder) or dedicated else _say("was not running", code=1)
        case ["remove", folder]:
            dedicated = end_all(_host(folder), remove=True)
            removed = EmbeddedServer(folder).remove() or dedicated
            return _say("removed", code=0) if removed else _say("there was none", code=1)
        case ["status", folder]:
            state = EmbeddedServer(folder).status()
            return _say(f"running on port {state.port}", code=0) if state else _say("not running", code=1)
    return _say("usage: python -m purveyor_server.providers.postgresql start|stop|status|remove DIR", code=2)


def _host(folder: str) -> Host:
    return Host(DedicatedConfig(), Folder(folder), LimitsConfig())


def _say(text: str, *, code: int) -> int:
    sys.stdout.write(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
