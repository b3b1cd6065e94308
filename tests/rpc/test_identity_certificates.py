"""Client certificates as principals, on TLS listeners of a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.principal import Means, Principal
from purveyor_server.rpc import RpcServer, RpcSettings, TlsListen, broker_service
from purveyor_server.rpc.calls import current_call
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.identity.certificates import CertificateRule, compiled, know
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.static import StaticTokens
from purveyor_server.security.issuing import Issued
from purveyor_server.security.tls import PeerCertificate, TlsFiles
from tests.rpc.failures import failure_of
from tests.rpc.identity import Tokens, shows
from tests.rpc.scripted import ScriptedDoor, instance
from tests.rpc.tls import DAY, GET, HOUR, SECONDS, WATCH, Site, credentials, stub_of

USER = frozenset({"VIEWER", "CONSUMER"})
SPIFFE = CertificateRule(
    kind="spiffe", match="spiffe://purveyor.local/tenant/{tenant}", roles=USER, tenants=("{tenant}",)
)


@pytest.fixture
def site(folder: Path) -> Site:
    return Site(folder)


@pytest.fixture
def tokens(site: Site) -> Tokens:
    return Tokens(site.clock)


@pytest.fixture
def judge(site: Site, tokens: Tokens) -> Authenticator:
    return Authenticator(site.clock, tokens=StaticTokens(tokens), rules=[SPIFFE], local=True)


@pytest.fixture
def seen(door: ScriptedDoor) -> list[Principal]:
    found: list[Principal] = []

    async def answer(*_: Any) -> Any:
        found.append(current_call().principal)
        return instance()

    door.script["get_instance"] = answer
    return found


@pytest.fixture
async def server(
    site: Site, folder: Path, door: ScriptedDoor, judge: Authenticator, seen: list[Principal]
) -> AsyncIterator[RpcServer]:
    """A port that asks for client certificates, one that does not, and a plain socket."""

    async def ping() -> None:
        pass

    open_files = TlsFiles(site.files.certificate, site.files.key)
    listen = (site.listen(), TlsListen("127.0.0.1:0", open_files), f"unix:{folder / 'plain'}")
    made = RpcServer([broker_service(door)], ping, listen, RpcSettings(), site.clock, judge)  # type: ignore[arg-type] # by script
    await made.start()
    yield made
    await made.drain(2.0)


def client(site: Site, *uris: str, name: str = "app") -> Issued:
    return site.authority.client(name, list(uris), site.now - HOUR, site.now + DAY)


async def test_a_spiffe_id_is_the_subject_with_roles_in_its_tenant(
    site: Site, server: RpcServer, seen: list[Principal]
) -> None:
    shown = client(site, "spiffe://purveyor.local/tenant/team-a")
    async with stub_of(server.addresses[0], credentials(site.authority, shown)) as stub:
        await stub.GetInstance(GET, timeout=SECONDS)

    assert (seen[0].subject, seen[0].means) == ("spiffe://purveyor.local/tenant/team-a", Means.CERTIFICATE)
    assert (seen[0].roles_in("team-a"), seen[0].roles_in("t")) == (USER, frozenset())
    assert seen[0].expires_at == shown.certificate.not_valid_after_utc


async def test_who_fits_no_rule_has_a_name_and_no_role(site: Site, server: RpcServer, seen: list[Principal]) -> None:
    for uri in (
        "spiffe://other.local/tenant/a",
        "spiffe://purveyor.local/tenant/a/b",
        "https://purveyor.local/tenant/a",
    ):
        async with stub_of(server.addresses[0], credentials(site.authority, client(site, uri))) as stub:
            await stub.GetInstance(GET, timeout=SECONDS)

    assert [principal.roles | frozenset(principal.grants) for principal in seen] == [frozenset()] * 3
    assert seen[2].subject == "certificate:app"


async def test_a_token_goes_before_a_certificate_and_a_wrong_one_is_refused(
    site: Site, server: RpcServer, tokens: Tokens, seen: list[Principal]
) -> None:
    text, _ = tokens.add("ci")
    shown = client(site, "spiffe://purveyor.local/tenant/a")
    async with stub_of(server.addresses[0], credentials(site.authority, shown)) as stub:
        await stub.GetInstance(GET, metadata=shows(text), timeout=SECONDS)
        refused = await failure_of(stub.GetInstance(GET, metadata=shows("pvt_x"), timeout=SECONDS))

    assert [principal.subject for principal in seen] == ["token:ci"]
    assert refused.metadata["problem"] == "malformed"


async def test_nobody_is_local_by_tls(site: Site, server: RpcServer, seen: list[Principal]) -> None:
    async with stub_of(server.addresses[1], credentials(site.authority)) as stub:
        refused = await failure_of(stub.GetInstance(GET, timeout=SECONDS))
    async with stub_of(server.addresses[2], None) as stub:
        await stub.GetInstance(GET, timeout=SECONDS)

    assert refused.metadata["problem"] == "missing"
    assert [principal.subject for principal in seen] == ["local"]


async def test_a_stream_ends_when_the_binding_of_its_certificate_goes(
    site: Site, server: RpcServer, door: ScriptedDoor, judge: Authenticator
) -> None:
    judge.bind([Binding(subject="certificate:app", roles=USER, tenants=frozenset({"t"}), means="certificate")])
    async with stub_of(server.addresses[0], credentials(site.authority, client(site))) as stub:
        call = stub.WatchOperation(WATCH, timeout=SECONDS)
        await door.signals.wait("watch_operation")
        judge.bind([])
        failure = await failure_of(drained(call))

    assert failure.reason == "PERMISSION_DENIED"


async def drained(call: Any) -> None:
    async for _ in call:
        pass


def peer(**changes: Any) -> PeerCertificate:
    values: dict[str, Any] = {
        "subject": "CN=ann,OU=ops,O=example", "common_name": "ann", "uris": (), "dns_names": (), "spiffe_id": "", "issuer": "CN=ca",
        "serial": 1, "not_before": None, "not_after": None, "fingerprint": "f", "links": (), "pem": b"", "chain": b"",
    }  # fmt: skip
    return PeerCertificate(**values | changes)


@pytest.mark.parametrize(
    ("kind", "match", "names", "tenant"),
    [
        ("subject", "CN={user},OU={tenant},O=example", {}, "ops"),
        ("subject", "CN={user},OU={tenant}", {}, None),
        ("common_name", "{tenant}", {}, "ann"),
        ("common_name", "{tenant}", {"common_name": "a,OU=x"}, None),
        ("dns", "{tenant}.apps.example.org", {"dns_names": ("x.org", "a.apps.example.org")}, "a"),
        ("dns", "{tenant}.apps.example.org", {"dns_names": ("a.b.apps.example.org",)}, None),
        (
            "dns",
            "{tenant}.apps.example.org",
            {"dns_names": ("a.apps-example.org", "a.apps.example.org.evil.org")},
            None,
        ),
        ("uri", "urn:team:{tenant}:*", {"uris": ("urn:team:a:b",)}, "a"),
        ("spiffe", "spiffe://d/{tenant}/*", {"spiffe_id": "spiffe://d/a/b"}, "a"),
        ("spiffe", "spiffe://d/{tenant}/*", {"spiffe_id": "spiffe://d/a/b/c"}, None),
        ("spiffe", "spiffe://d/{tenant}/*", {"uris": ("spiffe://d/a/b",)}, None),
    ],
)
def test_names_fit_as_a_whole(kind: str, match: str, names: dict[str, Any], tenant: str | None) -> None:
    rule = CertificateRule(kind=kind, match=match, roles=USER, tenants=("{tenant}",))

    known = know(peer(**names), [rule])

    assert [grant.tenants for grant in known.grants] == ([] if tenant is None else [frozenset({tenant})])


def test_what_is_called_by_a_rule_and_what_cannot_be_used() -> None:
    rule = CertificateRule(kind="common_name", match="{user}", roles=USER, tenants=None, subject="staff-{user}")
    assert know(peer(), [rule]).principal.subject == "certificate:staff-ann"
    for name in ("a\nb", "a\u202eb", "x" * 300):
        with pytest.raises(PurveyorError) as refused:
            know(peer(common_name=name), [])
        assert refused.value.metadata == {"problem": "names"}
    with pytest.raises(PurveyorError):
        know(
            peer(common_name="Not A Tenant"),
            [CertificateRule(kind="common_name", match="{t}", roles=USER, tenants=("{t}",))],
        )
    with pytest.raises(ValueError, match="twice"):
        compiled("{a}/{a}", "uri")
