"""The options of TLS, and `purveyor dev-certs`: certificates to try it with; the server's own code, loaded only here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purveyor.cli.serving import server_app
from purveyor.tls import Tls

TlsCa = Annotated[
    str | None,
    typer.Option(
        "--tls-ca",
        metavar="FILE",
        help="Authorities of the broker's certificate; `system` for the machine's. [env var: PURVEYOR_TLS_CA]",
        show_default=False,
    ),
]
TlsCertificate = Annotated[
    str | None,
    typer.Option(
        "--tls-certificate",
        metavar="FILE",
        help="The client's own. [env var: PURVEYOR_TLS_CERTIFICATE]",
        show_default=False,
    ),
]
TlsKey = Annotated[
    str | None,
    typer.Option("--tls-key", metavar="FILE", help="Its key. [env var: PURVEYOR_TLS_KEY]", show_default=False),
]
TlsServerName = Annotated[
    str | None,
    typer.Option(
        "--tls-server-name",
        metavar="NAME",
        help="What the broker's certificate is for, if not the host. [env var: PURVEYOR_TLS_SERVER_NAME]",
        show_default=False,
    ),
]


TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Holds the token that says who calls. [env var: PURVEYOR_TOKEN_FILE, PURVEYOR_TOKEN]",
        show_default=False,
    ),
]


def tls_of(ca: str | None, certificate: str | None, key: str | None, server_name: str | None) -> Tls | None:
    """What the options say; None without any."""
    given = {"ca": ca, "certificate": certificate, "key": key, "server_name": server_name}
    return Tls.of({name: value or "" for name, value in given.items()})


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("dev-certs")(dev_certs)


def dev_certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where they go; made 0700.")],
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One more DNS name or IP address of the server.", show_default=False),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=URI]", help="A client; URI: who it is. Default: dev.", show_default=False),
    ] = None,
    revoke: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Put a client on the revocation list.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(metavar="DAYS", help="How long they are good.")] = 30,
    force: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--force", help="Make all anew, over what is there.", show_default=False)
    ] = False,
) -> None:
    """Make certificates to try TLS: an authority, a server, clients. Prints how to use them; keeps what is there."""
    names = (tuple(host or ()), tuple(client or ()), tuple(revoke or ()))
    raise typer.Exit(server_app().dev_certs_command(folder, *names, days, force))
