"""What `purveyor dev-certs` does, as a function that returns an exit code.

Guarantee: what is printed can be put into the settings, and typed, as it is.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from purveyor_server.app.refusals import Exit
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.clock import SystemClock

EXAMPLE_PORT = 7443
# The default URI of a client names its tenant.
RULE = """
[[identity.certificates]]
spiffe = "spiffe://purveyor.local/tenant/{tenant}"
roles = ["VIEWER", "CONSUMER"]
tenants = ["{tenant}"]
"""


def dev_certs_command(
    folder: Path,
    hosts: tuple[str, ...],
    clients: tuple[str, ...],
    revoked: tuple[str, ...],
    days: int,
    force: bool,  # noqa: FBT001 - the CLI's options in order
) -> int:
    """Make certificates for trying TLS; prints the settings and the command that use them."""
    from purveyor_server.security.devcerts import Wish, make_dev_certs  # noqa: PLC0415 - loaded only where it is wanted

    folder = folder.expanduser().absolute()
    names = clients if clients or revoked else ("dev",)
    try:
        made = make_dev_certs(folder, Wish(hosts, names, revoked, days, force), SystemClock().now())
    except PurveyorError as error:
        sys.stderr.write(f"purveyor: {error.message}\n")
        return Exit.CONFIG
    except OSError as error:
        sys.stderr.write(f"purveyor: {error.filename}: {(error.strerror or 'cannot be written').lower()}\n")
        return Exit.CONFIG
    sys.stderr.write("".join(f"made {path}\n" for path in made.made))
    sys.stderr.write("".join(f"kept {path}, which was there (--force makes all anew)\n" for path in made.kept))
    sys.stdout.write(_settings(folder) + "".join(_command(folder, name) for name in made.clients))
    return Exit.OK


def _settings(folder: Path) -> str:
    keys = {"certificate": "server.pem", "key": "server.key", "client_ca": "ca.pem", "crl": "crl.pem"}
    lines = "".join(f"{key} = {json.dumps(str(folder / name), ensure_ascii=False)}\n" for key, name in keys.items())
    return f'# for the settings of the broker\n[[listen.tls]]\naddress = "127.0.0.1:{EXAMPLE_PORT}"\n{lines}{RULE}'


def _command(folder: Path, name: str) -> str:
    files = {"--tls-ca": "ca.pem", "--tls-certificate": f"client-{name}.pem", "--tls-key": f"client-{name}.key"}
    options = " ".join(f"{option} {shlex.quote(str(folder / file))}" for option, file in files.items())
    return (
        f"\n# for the client {name}\n"
        f"purveyor context set {name} --address localhost:{EXAMPLE_PORT} --tenant {name} {options}\n"
        f"purveyor --context {name} catalog\n"
    )
