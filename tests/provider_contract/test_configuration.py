"""Bad configuration is named by its key; wrong rights and an absent server by what to do."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Permanent, RightsMissing, Unreachable
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.cluster import choose_port
from purveyor_server.providers.postgresql.config import ProviderConfig
from purveyor_server.providers.postgresql.provider import _tls
from purveyor_server.providers.postgresql.settings import (
    BindingParameters,
    SchemaParameters,
    SharedParameters,
    read_as,
    read_settings,
    settings_schema,
)
from purveyor_server.providers.strict import Strict, read_configuration
from tests.postgres_server import TestEnvironment, TestServer
from tests.provider_contract.authorities import authority, issue

SERVER: dict[str, Json] = {"host": "db", "password": {"env": "PASSWORD"}}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"sever": SERVER}, "sever"),
        ({"server": {**SERVER, "port": 0}}, "server.port"),
        ({"server": {**SERVER, "password": "clear"}}, "server.password"),
        ({"server": {**SERVER, "password": {"file": "/a", "env": "B"}}}, "server.password"),
        ({"server": {"host": "db"}}, "server.password"),
        ({"server": {**SERVER, "sslmode": "maybe"}}, "server.sslmode"),
        ({"server": SERVER, "embedded": True}, "config"),
        ({"embedded": False}, "config"),
        ({"embedded": {"user": "me"}}, "embedded"),
        ({"limits": {"connections": 1}}, "limits.connections"),
        ({"limits": {"statement_timeout_seconds": -1}}, "limits.statement_timeout_seconds"),
    ],
)
def test_a_bad_key_is_named(config: dict[str, Any], key: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        read_configuration(ProviderConfig, config)

    assert refused.value.reason is Reason.INVALID_REQUEST
    assert any(violation.field.startswith(key) for violation in refused.value.violations)


def test_a_password_in_the_wrong_place_is_not_repeated() -> None:
    with pytest.raises(PurveyorError) as refused:
        read_configuration(ProviderConfig, {"server": {**SERVER, "password": "hunter2-in-clear"}})

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("config", [{}, {"embedded": True}, {"embedded": {"os_user": "nobody"}}, {"server": SERVER}])
def test_a_sound_configuration_is_read(config: dict[str, Any]) -> None:
    assert read_configuration(ProviderConfig, config).limits.connections == 8


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "kind"),
        ({"kind": "own"}, "kind"),
        ({"kind": "shared", "temp_file_limit": "1GB"}, "temp_file_limit"),
        ({"kind": "schema", "connection_limit": 5}, "connection_limit"),
        ({"kind": "schema", "database": "postgres"}, "database"),
        ({"kind": "schema", "database": "pv_db_1"}, "database"),
        ({"kind": "schema", "database": 'a"; DROP DATABASE x'}, "database"),
    ],
)
def test_bad_settings_of_a_plan_are_named(settings: dict[str, Json], key: str) -> None:
    with pytest.raises(Permanent, match=key):
        read_settings(settings)
    faults = list(jsonschema_rs.validator_for(settings_schema()).iter_errors(settings))
    assert any(key in fault.message or key in fault.instance_path for fault in faults)
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (SharedParameters, {"extensions": ['a"; DROP DATABASE x']}),
        (SharedParameters, {"connection_limit": 0}),
        (SharedParameters, {"more": 1}),
        (SchemaParameters, {"extensions": ["hstore"]}),
        (BindingParameters, {"connection_limit": "all"}),
    ],
)
def test_bad_parameters_are_named(model: type[Strict], parameters: dict[str, Json]) -> None:
    with pytest.raises(Permanent, match=next(iter(parameters))):
        read_as(model, parameters)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_root_certificate_is_named(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "password").write_text("x", encoding="utf-8")
    certificate = tmp_path / "root.crt"
    if content is not None:
        certificate.write_text(content, encoding="utf-8")
    config = {"host": "db", "password": {"file": str(tmp_path / "password")}, "sslrootcert": str(certificate)}

    with pytest.raises(PurveyorError) as refused:
        PostgresProvider({"server": config}, TestEnvironment(tmp_path, "store"))
    assert refused.value.violations[0].field == "server.sslrootcert"


@pytest.mark.parametrize(
    ("sslmode", "checks_name"), [("disable", None), ("require", None), ("verify-ca", False), ("verify-full", True)]
)
def test_what_a_sslmode_checks(sslmode: str, checks_name: bool | None) -> None:  # noqa: FBT001 - a table
    config = read_configuration(ProviderConfig, {"server": {**SERVER, "sslmode": sslmode}})
    assert config.server is not None

    tls = _tls(config.server)

    assert (tls.check_hostname if isinstance(tls, ssl.SSLContext) else None) is checks_name


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca_certificate", "client_ca_key"])
@pytest.mark.parametrize("fault", ["absent", "of another"])
def test_certificates_that_do_not_fit_are_named_at_the_start(tmp_path: Path, key: str, fault: str) -> None:
    issue(tmp_path, "server", "localhost", authority(tmp_path, "root"))
    authority(tmp_path, "clients")
    files = {
        "certificate": "server.crt",
        "key": "server.key",
        "client_ca_certificate": "clients.crt",
        "client_ca_key": "clients.key",
    }
    bad = "none" if fault == "absent" else f"root.{'key' if key.endswith('key') else 'crt'}"
    tls = {name: str(tmp_path / (bad if name == key else file)) for name, file in files.items()}

    with pytest.raises(PurveyorError) as refused:
        PostgresProvider({"embedded": True, "dedicated": {"tls": tls}}, TestEnvironment(tmp_path / "data", "store"))

    named = key if fault == "absent" else key.replace("certificate", "key")  # the pair does not fit: its key is named
    assert refused.value.violations[0].field == f"dedicated.tls.{named}"


@pytest.mark.parametrize(
    ("dedicated", "why"),
    [
        ({"port_low": 2000, "port_high": 1999}, "port_low is above port_high"),
        ({"uid_low": 70000}, "give `uid_low` and `uid_high`"),
        ({"uid_low": 0, "uid_high": 5}, "greater than or equal to 1000"),
        ({"folder": "relative"}, "match pattern"),
        ({"tls": {"certificate": "/a", "key": "/b", "client_ca_key": "/c"}}, "or neither"),
    ],
)
def test_bad_options_of_dedicated_servers_are_named(dedicated: dict[str, Any], why: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        read_configuration(ProviderConfig, {"embedded": True, "dedicated": dedicated})

    assert refused.value.violations[0].field.startswith("dedicated")
    assert why in refused.value.violations[0].description


async def test_an_embedded_server_without_a_place_is_unreachable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way", encoding="utf-8")
    provider = PostgresProvider({}, TestEnvironment(file / "keep", "store"))

    with pytest.raises(Unreachable) as refused:
        await provider.check()
    assert "in the way" not in refused.value.detail
    await provider.close()


@pytest.mark.postgres
async def test_sound_rights_pass(postgres: TestServer) -> None:
    provider = PostgresProvider(postgres.config, postgres.environment())

    await provider.check()
    await provider.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("spoil", "mend", "advice"),
    [
        (
            "ALTER ROLE purveyor_admin NOCREATEDB",
            "ALTER ROLE purveyor_admin CREATEDB",
            'ALTER ROLE "purveyor_admin" CREATEDB;',
        ),
        (
            "ALTER ROLE purveyor_admin NOCREATEROLE",
            "ALTER ROLE purveyor_admin CREATEROLE",
            'ALTER ROLE "purveyor_admin" CREATEROLE;',
        ),
        (
            "GRANT CONNECT ON DATABASE template1 TO PUBLIC",
            "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC",
            'REVOKE CONNECT ON DATABASE "template1" FROM PUBLIC;',
        ),
    ],
)
async def test_a_missing_right_is_named_with_its_statement(
    postgres: TestServer, spoil: str, mend: str, advice: str
) -> None:
    provider = PostgresProvider(postgres.config, postgres.environment())
    async with postgres.superuser() as superuser:
        await superuser.execute(spoil)
        try:
            with pytest.raises(RightsMissing) as refused:
                await provider.check()
        finally:
            await superuser.execute(mend)
    await provider.close()

    assert advice in refused.value.detail


@pytest.mark.postgres
async def test_a_refused_password_is_a_missing_right(postgres: TestServer) -> None:
    file = postgres.keep / "wrong.password"
    file.write_text("wrong\n", encoding="utf-8")
    config = {"server": postgres.server_config(password={"file": str(file)})}
    provider = PostgresProvider(config, postgres.environment())
    try:
        with pytest.raises(RightsMissing, match="does not let the broker in"):
            await provider.check()
    finally:
        file.unlink()
        await provider.close()


@pytest.mark.postgres
async def test_an_absent_server_is_unreachable(postgres: TestServer) -> None:
    config = {"server": postgres.server_config(port=choose_port())}
    provider = PostgresProvider(config, postgres.environment())

    with pytest.raises(Unreachable):
        await provider.check()
    await provider.close()


@pytest.mark.postgres
async def test_a_server_that_never_answers_is_unreachable(postgres: TestServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        config = {
            "server": postgres.server_config(port=silent.getsockname()[1]),
            "limits": {"connect_timeout_seconds": 0.2},
        }
        provider = PostgresProvider(config, postgres.environment())
        with pytest.raises(Unreachable):
            await provider.check()
        await provider.close()
