"""The commands put together."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import (
    adopting,
    auditing,
    authoring,
    campaigning,
    catalogs,
    changing,
    crediting,
    drifting,
    failing,
    following,
    inventories,
    keys,
    leasing,
    operating,
    orphaning,
    placing,
    quotas,
    reading,
    rooting,
    securing,
    serving,
    tokens,
)
from purveyor.cli.securing import TlsCa, TlsCertificate, TlsKey, TlsServerName, TokenFile, tls_of
from purveyor.cli.session import AsJson, ContextName, Globals

if TYPE_CHECKING:
    from typer.models import CommandInfo, TyperInfo

EPILOG = (
    "Exit codes: 0 done, 1 operation failed, 2 usage or invalid request, 3 not found, 4 conflict, 5 refused in this state, "
    "6 unavailable, 7 quota or bound reached, 8 not allowed, 9 time-out, 10 defect, 11 output failed, 130 interrupted."
)

# How `purveyor --help` groups the commands, in this order.
PANELS = {
    "Order and use": (
        "catalog", "provision", "bind", "credentials", "update", "upgrade", "renew", "rotate", "unbind", "deprovision", "cancel",
    ),
    "Look": (
        "instances", "instance", "bindings", "binding", "operations", "operation", "watch", "events", "explain",
    ),
    "When something fails": ("why", "retry", "cleanup", "abandon", "force-revoke", "purge", "edit-step"),
    "Operate": (
        "status", "freeze", "thaw", "campaign", "drift", "orphans", "rebuild", "adopt", "rotate-root", "quota", "keys", "audit",
        "backup", "recover", "log-level", "drain",
    ),
    "For platforms": ("inventory", "claim"),
    "On this machine": ("serve", "restore", "config", "token", "context", "dev-certs", "provider"),
}  # fmt: skip

app = typer.Typer(
    help="Order a database, bind to it, watch the work, give it back.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    """Print the distribution's version and end. Raises typer.Exit."""
    if wanted:
        typer.echo(metadata.version("purveyor"))
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            "-a",
            envvar="PURVEYOR_ADDRESS",
            metavar="ADDRESS",
            help="unix:/path or host:port; without it the context's, else that of `purveyor serve --dev`.",
            show_default=False,
        ),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant",
            "-t",
            envvar="PURVEYOR_TENANT",
            metavar="TENANT",
            help="Whose instances; without it the context's, else `default`.",
            show_default=False,
        ),
    ] = None,
    context: ContextName = None,
    tls_ca: TlsCa = None,
    tls_certificate: TlsCertificate = None,
    tls_key: TlsKey = None,
    tls_server_name: TlsServerName = None,
    token_file: TokenFile = None,
    json: AsJson = False,  # noqa: FBT002 - a flag of the command line
    version: Annotated[  # noqa: ARG001, FBT002 - a flag with its own callback
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Order a database, bind to it, watch the work, give it back."""
    tls = tls_of(tls_ca, tls_certificate, tls_key, tls_server_name)
    ctx.obj = Globals(address, tenant, json, context, tls, token_file)


catalogs.add(app)
reading.add(app)
crediting.add(app)
following.add(app)
changing.add(app)
operating.add(app)
orphaning.add(app)
drifting.add(app)
adopting.add(app)
rooting.add(app)
inventories.add(app)
failing.add(app)
leasing.add(app)
keys.add(app)
quotas.add(app)
campaigning.add(app)
auditing.add(app)
tokens.add(app)
placing.add(app)
serving.add(app)
securing.add(app)
authoring.add(app)


def arrange(made: typer.Typer) -> None:
    """Group and order the commands by PANELS. Raises KeyError for one that is in no panel."""
    panel_of = {name: panel for panel, names in PANELS.items() for name in names}
    order = list(panel_of)

    def name_of(found: CommandInfo | TyperInfo) -> str:
        return str(found.name or getattr(found.callback, "__name__", ""))

    listed: list[CommandInfo | TyperInfo] = [*made.registered_commands, *made.registered_groups]
    for found in listed:
        found.rich_help_panel = panel_of[name_of(found)]
    made.registered_commands.sort(key=lambda command: order.index(name_of(command)))
    made.registered_groups.sort(key=lambda group: order.index(name_of(group)))


arrange(app)
