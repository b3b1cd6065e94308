"""Static tokens from their making to their end, on a whole broker, by the client library."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import purveyor
from purveyor.admin import AdminClient
from purveyor.cli import contexts
from purveyor.cli.app import app
from purveyor.errors import InvalidRequestError, NotFoundError, PermissionDeniedError
from purveyor.tokens import TokenSource, is_local
from purveyor_server.app.refusals import Exit
from purveyor_server.app.tokens import create_token_command
from purveyor_server.kit.clock import SystemClock
from purveyor_server.security.identity.tokentext import mint, parse
from purveyor_server.store.contract import Page
from purveyor_server.store.operating import AuditLook
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from tests.rpc.whole import Whole, whole_broker

TENANT, WHY = "t", "a test"


async def drained(events: AsyncIterator[Any]) -> None:
    async for _ in events:
        pass


async def test_a_token_is_made_used_and_taken_back(broker: Whole, admin: AdminClient) -> None:
    made = await admin.create_token("ci", ["viewer", "consumer"], WHY, tenants=[TENANT], ttl=timedelta(days=1))

    assert re.fullmatch("pvt_[0-9a-z]{16}_[0-9A-Za-z]{49}", made.text)
    assert made.text not in repr(made)
    async with purveyor.Client(broker.address, tenant=TENANT, token=made.text) as client:
        await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
        events = client.events(start="snapshot")
        await anext(events)
        async with purveyor.Client(broker.address, tenant="u", token=made.text) as other:
            with pytest.raises(PermissionDeniedError, match="VIEWER"):
                await other.instance("orders")

        revoked = await admin.revoke_token(made.token.token_id, WHY)

        with pytest.raises(PermissionDeniedError) as refused:
            await client.instance("orders")
        with pytest.raises(PermissionDeniedError) as ended:
            await asyncio.wait_for(drained(events), 10)
    assert (refused.value.reason, ended.value.reason) == ("CREDENTIAL_REVOKED", "CREDENTIAL_REVOKED")
    (listed,) = [token async for token in admin.tokens()]
    assert listed == revoked
    assert listed.revoke_time is not None
    assert (listed.roles, listed.tenants, listed.creator) == (("VIEWER", "CONSUMER"), (TENANT,), "local")
    records = [record async for record in admin.audit()]
    assert [record.action for record in records if "Token" in record.action] == ["RevokeToken", "CreateToken"]
    assert made.text.rpartition("_")[2] not in repr(records)


async def test_the_store_keeps_no_secret(broker: Whole, admin: AdminClient, folder: Path) -> None:
    made = await admin.create_token("ci", ["viewer"], WHY, tenants=[TENANT])

    secret = made.text.rpartition("_")[2][:43].encode()

    def holding() -> list[Path]:
        return [file for file in folder.glob("store.db*") if secret in file.read_bytes()]

    assert await asyncio.to_thread(holding) == []


async def test_what_a_token_cannot_be(admin: AdminClient) -> None:
    with pytest.raises(InvalidRequestError, match="roles: 'root' is none of"):
        await admin.create_token("ci", ["root"], WHY, every_tenant=True)
    for wrong in ({"tenants": ["t"], "every_tenant": True}, {}):
        with pytest.raises(InvalidRequestError, match="give tenants, or every_tenant"):
            await admin.create_token("ci", ["viewer"], WHY, **wrong)  # type: ignore[arg-type] # by case
    for name in ("", "Ci", "a\nb", "x" * 64, "-a"):
        with pytest.raises(InvalidRequestError, match="name"):
            await admin.create_token(name, ["viewer"], WHY, every_tenant=True)
    with pytest.raises(InvalidRequestError, match="at least one"):
        await admin.create_token("ci", [], WHY, every_tenant=True)
    with pytest.raises(InvalidRequestError, match="tenants"):
        await admin.create_token("ci", ["viewer"], WHY, tenants=["T\r\n"])
    with pytest.raises(InvalidRequestError, match="ttl"):
        await admin.create_token("ci", ["viewer"], WHY, every_tenant=True, ttl=0.5)
    with pytest.raises(NotFoundError, match="there is no token"):
        await admin.revoke_token("nothing", WHY)
    assert [token async for token in admin.tokens()] == []


async def test_validate_only_makes_and_revokes_nothing(admin: AdminClient) -> None:
    made = await admin.create_token("ci", ["viewer"], WHY, every_tenant=True, validate_only=True)
    assert (made.text, made.token.token_id) == ("", "")
    kept = await admin.create_token("ci", ["viewer"], WHY, every_tenant=True)
    await admin.revoke_token(kept.token.token_id, WHY, validate_only=True)

    (found,) = [token async for token in admin.tokens()]

    assert found.revoke_time is None


async def test_only_administrators_may(broker: Whole, admin: AdminClient) -> None:
    made = await admin.create_token("op", ["operator"], WHY, every_tenant=True)
    async with AdminClient(broker.address, token=made.text) as operator:
        await operator.status()
        with pytest.raises(PermissionDeniedError, match="ADMIN"):
            await operator.create_token("more", ["admin"], WHY, every_tenant=True)
        with pytest.raises(PermissionDeniedError, match="ADMIN"):
            _ = [token async for token in operator.tokens()]


async def test_pages_of_tokens(admin: AdminClient) -> None:
    made = {(await admin.create_token("ci", ["viewer"], WHY, every_tenant=True)).token.token_id for _ in range(5)}

    listed = [token.token_id async for token in admin.tokens(page_size=2)]

    assert listed == sorted(made)


async def test_a_token_file_is_read_again(broker: Whole, admin: AdminClient, folder: Path) -> None:
    first = await admin.create_token("ci", ["viewer"], WHY, tenants=[TENANT])
    second = await admin.create_token("ci", ["viewer"], WHY, tenants=[TENANT])
    file = folder / "token"
    file.write_text(f"{first.text}\n")
    async with purveyor.Client(broker.address, tenant=TENANT, token_file=file) as client:
        await client.catalog()
        catalogs = client.catalogs()
        await anext(catalogs)
        await admin.revoke_token(first.token.token_id, WHY)
        file.with_suffix(".new").write_text(f"{second.text}\n")
        file.with_suffix(".new").replace(file)

        with pytest.raises(TimeoutError):  # it goes on, by the new token; the catalog does not change
            async with asyncio.timeout(3):
                await anext(catalogs)
        await client.catalog()


async def test_where_nothing_is_enough_a_client_says_who_it_is(folder: Path) -> None:
    async with whole_broker(folder, local=False) as broker, purveyor.Client(broker.address, tenant=TENANT) as client:
        with pytest.raises(PermissionDeniedError) as refused:
            await client.catalog()
    assert (refused.value.reason, refused.value.metadata["problem"]) == ("UNAUTHENTICATED", "missing")


async def test_the_first_token_is_made_while_the_broker_does_not_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def create(name: str = "root") -> tuple[int, str]:
        return create_token_command(name, ("ADMIN",), (), True, 60.0, WHY, None, folder)

    code, text = await asyncio.to_thread(create)

    assert code == Exit.OK
    store = await open_store(folder / "purveyor.db", clock=SystemClock(), settings=SqliteSettings())
    try:
        (kept,) = await store.tokens(Page(10))
        (chained,) = (await store.audit((), AuditLook(10))).records
        locked, nothing = await asyncio.to_thread(create)
    finally:
        await store.close()
    shown = parse(text)
    assert shown is not None
    assert (kept.token_id, kept.hash) == (shown.token_id, shown.hash)
    assert chained.record.principal.startswith("offline:")
    assert (locked, nothing) == (Exit.STORE, "")
    assert await asyncio.to_thread(create, "No Name") == (Exit.CONFIG, "")
    assert "name" in capsys.readouterr().err


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    token = mint().text
    with pytest.raises(InvalidRequestError, match="over TLS, a unix socket or loopback alone") as refused:
        purveyor.Client("broker.example:7070", token=token)
    assert token not in str(refused.value)
    monkeypatch.setenv("PURVEYOR_TOKEN", token)
    with pytest.raises(InvalidRequestError, match="over TLS"):
        purveyor.Client("10.0.0.1:7070", tls=False)
    purveyor.Client("broker.example:7070", tls=True)
    for address in ("unix:/tmp/s", "localhost:1", "127.0.0.1:1", "[::1]:1", "dns:///localhost:1", "ipv4:127.0.0.9:1"):
        assert is_local(address), address
        purveyor.Client(address)
    for address in ("dns:///localhost.example:1", "127.0.0.1.example.org:1", "ipv4:10.0.0.1:1", "0.0.0.0:1"):
        assert not is_local(address), address


def test_token_files_that_cannot_be_used(tmp_path: Path) -> None:
    cases = {"empty": "", "two lines": "a\nb", "blank": "a b", "letters": "t\u00f6ken", "long": "a" * 6001}
    for name, content in cases.items():
        file = tmp_path / name
        file.write_text(content)
        with pytest.raises(InvalidRequestError, match="is no token"):
            purveyor.Client("unix:/s", token_file=file)
    with pytest.raises(InvalidRequestError, match="no such file"):
        purveyor.Client("unix:/s", token_file=tmp_path / "missing")
    with pytest.raises(InvalidRequestError, match="not both"):
        purveyor.Client("unix:/s", token="a", token_file=tmp_path / "empty")
    assert repr(TokenSource("secret")) == "TokenSource(***)"


def test_the_command_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the first token, by configuration file, into a file of its own; contexts keep the file's name."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    out = folder / "token"
    line = f"token create root --role admin --role operator --every-tenant --reason x --data-dir {folder / 'data'} --out {out}"

    made = CliRunner().invoke(app, line.split())
    again = CliRunner().invoke(app, line.split())
    named = CliRunner().invoke(app, f"context set prod --address unix:/s --token-file {out}".split())

    assert (made.exit_code, named.exit_code) == (0, 0), made.output
    assert parse(out.read_text().strip()) is not None
    assert out.stat().st_mode & 0o777 == 0o600
    assert again.exit_code != 0
    assert parse(again.stdout.strip()) is not None  # it was made: this is the only chance to have it
    assert f'token_file = "{out}"' in (folder / "purveyor" / "contexts.toml").read_text()
    assert contexts.choose(None, None, None).token_file == str(out)
    assert contexts.choose("unix:/other", None, None).token_file is None
