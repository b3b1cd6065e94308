"""`python -m purveyor_server.providers.postgresql start|stop|status|remove DIR`: the embedded server of a provider's data directory."""

from __future__ import annotations

import logging
import sys

import structlog

from purveyor_server.providers.postgresql.embedded import EmbeddedServer, stop


def main(arguments: list[str]) -> int:
    """Entry of `python -m`; exit code 0 done, 1 not running, 2 wrong use."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    match arguments:
        case ["start", folder]:
            return _say(f"running on port {EmbeddedServer(folder).start().port}", code=0)
        case ["stop", folder]:
            return _say("stopped", code=0) if stop(folder) else _say("was not running", code=1)
        case ["remove", folder]:
            removed = EmbeddedServer(folder).remove()
            return _say("removed", code=0) if removed else _say("there was none", code=1)
        case ["status", folder]:
            state = EmbeddedServer(folder).status()
            return _say(f"running on port {state.port}", code=0) if state else _say("not running", code=1)
    return _say("usage: python -m purveyor_server.providers.postgresql start|stop|status|remove DIR", code=2)


def _say(text: str, *, code: int) -> int:
    sys.stdout.write(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
