"""Settings: every bad value is named by its path, all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import BaseModel

from purveyor_server.app.bounds import lifecycle_settings, rpc_settings
from purveyor_server.app.checks import read_catalog
from purveyor_server.config.listening import ListenSettings
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.config.values import parse_address, parse_duration, parse_size
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.providers.facade import FacadeSettings
from purveyor_server.providers.registry import InstalledFactories
from purveyor_server.rpc.settings import RpcSettings
from purveyor_server.security.tls import TlsFiles
from purveyor_server.store.sqlite.settings import SqliteSettings

ROOT = Path(__file__).resolve().parents[2]
CATALOG = 'catalog = "catalog.yaml"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "purveyor.toml"


def problems(file: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {})
    return [str(problem) for problem in caught.value.problems]


def test_a_catalog_is_all_that_must_be_given(file: Path, tmp_path: Path) -> None:
    file.write_text(CATALOG)

    settings = load(file, {"XDG_STATE_HOME": str(tmp_path)})

    assert settings.catalog == tmp_path / "catalog.yaml"
    assert settings.data_dir == tmp_path / "purveyor"
    assert settings.keys_path == tmp_path / "purveyor" / "keys"
    assert [address.socket for address in settings.listen.addresses] == [tmp_path / "purveyor" / "broker.sock"]
    assert (settings.log.format, settings.log.level) == ("json", "info")


def test_dev_needs_nothing(tmp_path: Path) -> None:
    settings = load(None, {"XDG_STATE_HOME": str(tmp_path)}, dev=True)

    assert settings.catalog is None
    assert settings.data_dir == tmp_path / "purveyor" / "dev"
    assert settings.log.format == "console"


def test_the_parts_get_their_values(file: Path) -> None:
    file.write_text(
        CATALOG
        + 'data_dir = "data"\n[listen]\naddresses = ["127.0.0.1:7070", "unix:/run/p/b.sock"]\ndrain = "5s"\nreflection = false\n'
        + '[engine]\nrunning = 7\nlease = "45s"\nretry_first = "100ms"\nstop_grace = 3\n'
        + '[store]\nlow_water_bytes = "1GiB"\nread_timeout = "2s"\n'
        + '[limits]\nmax_wait = "1m"\nstreams = 5\n[providers]\ncall_timeout = "1m"\n'
        + '[retention]\noperations = "60d"\nmax_events = 9\n'
    )
    settings = load(file, {})

    engine, store, rpc = settings.engine.values(), settings.store.values(), rpc_settings(settings)
    assert settings.data_dir == file.parent / "data"
    assert [address.text for address in settings.listen.addresses] == ["127.0.0.1:7070", "unix:/run/p/b.sock"]
    assert (engine.running, engine.lease, engine.retry.first, engine.stop_grace) == (7, timedelta(seconds=45), 0.1, 3.0)
    assert (store.low_water_bytes, store.read_timeout) == (1024**3, timedelta(seconds=2))
    assert (rpc.wait_seconds, rpc.streams, rpc.reflection) == (60.0, 5, False)
    assert settings.listen.drain == timedelta(seconds=5)
    assert settings.providers.values().call == 60.0
    assert settings.retention.values().operations == timedelta(days=60)


def test_defaults_are_those_of_the_parts(tmp_path: Path) -> None:
    settings = load(None, {"XDG_STATE_HOME": str(tmp_path)}, dev=True)

    assert settings.engine.values() == EngineSettings()
    assert settings.store.values() == SqliteSettings()
    assert settings.providers.values() == FacadeSettings()
    assert rpc_settings(settings) == RpcSettings()
    assert lifecycle_settings(settings) == LifecycleSettings(max_wait=settings.limits.max_wait)


def test_the_environment_goes_over_the_file(file: Path) -> None:
    file.write_text(CATALOG + "[engine]\nrunning = 7\nreserved = 2\n")

    settings = load(
        file,
        {
            "PURVEYOR_ENGINE__RUNNING": "9",
            "PURVEYOR_DATA_DIR": "/var/lib/p",
            "PURVEYOR_LISTEN__ADDRESSES": "127.0.0.1:1, [::1]:2",
            "PURVEYOR_LISTEN__REFLECTION": "false",
        },
    )

    assert (settings.engine.running, settings.engine.reserved) == (9, 2)
    assert settings.data_dir == Path("/var/lib/p")
    assert [address.port for address in settings.listen.addresses] == [1, 2]
    assert settings.listen.reflection is False


def test_variables_of_client_and_tests_are_left_alone(file: Path) -> None:
    file.write_text(CATALOG)

    others = {"PURVEYOR_ADDRESS": "unix:/x", "PURVEYOR_FAILPOINTS": "a=kill", "PURVEYOR_TENANT": "t"}

    assert load(file, others) == load(file, {})


def test_every_problem_is_named_by_its_path_at_once(file: Path) -> None:
    text = """
data_dir = 5
unknown = 1
[listen]
addresses = ["0.0.0.0:7070", "127.0.0.1:99999", "unix:relative", "example.com:1", "nonsense", "127.0.0.1:1"]
[engine]
running = 0
runing = 3
lease = "1s"
[log]
level = "loud"
[store]
low_water_bytes = "many"
[retention]
operations = "29d"
[limits]
max_wait = "0s"
"""
    environ = {"PURVEYOR_ENGINE__PER_TENANT": "few", "PURVEYOR_ENGIN__RUNNING": "1"}

    assert sorted(problems(file, text, environ)) == sorted(
        [
            "data_dir: must be a path",
            "unknown: is not a known key",
            "PURVEYOR_ENGIN__RUNNING: engin: is not a known key; did you mean 'engine'?",
            "listen.addresses[0]: a listener without TLS must be a loopback address or a unix socket; others go under `tls`",
            "listen.addresses[1]: must be like 127.0.0.1:7070, [::1]:7070 or unix:/run/purveyor/broker.sock",
            "listen.addresses[2]: the path of a unix socket must be absolute: unix:/run/purveyor/broker.sock",
            "listen.addresses[3]: the host must be an IP address or localhost",
            "listen.addresses[4]: must be like 127.0.0.1:7070, [::1]:7070 or unix:/run/purveyor/broker.sock",
            "engine.running: must be greater than or equal to 1",
            "PURVEYOR_ENGINE__PER_TENANT: engine.per_tenant: must be a whole number",
            "engine.runing: is not a known key; did you mean 'running'?",
            "engine.lease: must be at least 3s: a third of it is left when work stops",
            "log.level: must be 'debug', 'info', 'warning' or 'error'",
            "store.low_water_bytes: must be a number of bytes, or a text like 512KiB, 64MiB or 1GiB",
            "retention.operations: must be at least 30d: clients may ask for an outcome that late",
            "limits.max_wait: must be longer than zero",
            "catalog: is required: the path of a catalog file (`purveyor serve --dev` brings one of its own)",
        ]
    )


TLS = """
[listen]
addresses = []
[[listen.tls]]
address = "0.0.0.0:7443"
certificate = "tls/server.pem"
key = "/etc/tls/server.key"
[[admin.tls]]
address = "unix:/run/p/admin.sock"
certificate = "~/server.pem"
key = "server.key"
client_ca = "ca.pem"
crl = "crl.pem"
crl_expired = "refuse"
"""


def test_listeners_with_tls_may_be_anywhere(file: Path) -> None:
    file.write_text(CATALOG + TLS)

    settings = load(file, {})

    (one,), (two,) = settings.listen.tls, settings.admin.tls
    assert (one.address.text, one.address.loopback, settings.listen.addresses) == ("0.0.0.0:7443", False, ())
    assert one.files == TlsFiles(file.parent / "tls/server.pem", Path("/etc/tls/server.key"))
    assert (one.crl_expired, two.crl_expired) == ("warn", "refuse")
    assert two.files.certificate == Path.home() / "server.pem"
    assert (two.files.client_ca, two.files.crl) == (file.parent / "ca.pem", file.parent / "crl.pem")
    assert len(settings.admin.addresses) == 1  # the socket of the data folder stays


def test_listeners_with_tls_by_the_environment(file: Path) -> None:
    file.write_text(CATALOG)
    text = '[{"address": "[::]:7443", "certificate": "/tls/c", "key": "/tls/k"}]'

    (found,) = load(file, {"PURVEYOR_LISTEN__TLS": text}).listen.tls

    assert (found.address.text, found.files) == ("[::]:7443", TlsFiles(Path("/tls/c"), Path("/tls/k")))
    assert problems(file, CATALOG, {"PURVEYOR_LISTEN__TLS": "0.0.0.0:7443"}) == [
        "PURVEYOR_LISTEN__TLS: listen.tls: must be a list of tables, in JSON where it is a text"
    ]


def test_bad_listeners_with_tls_are_named(file: Path) -> None:
    text = """
[listen]
addresses = []
[admin]
tls = 5
"""
    assert sorted(problems(file, CATALOG + text)) == [
        "admin.tls: must be a list",
        "listen.addresses: must name at least one address",
    ]
    text = """
[[listen.tls]]
address = "example.com:1"
certificate = "a"
[[listen.tls]]
address = "127.0.0.1:1"
certificate = "a"
key = "b"
crl = "c"
crl_expired = "maybe"
client = "x"
"""
    assert sorted(problems(file, CATALOG + text)) == [
        "listen.tls[0].address: the host must be an IP address or localhost",
        "listen.tls[0].key: is required",
        "listen.tls[1].client: is not a known key",
        "listen.tls[1].crl: needs client_ca: without it no client shows a certificate that could be revoked",
        "listen.tls[1].crl_expired: must be 'warn' or 'refuse'",
    ]


def test_a_section_that_is_none_is_named(file: Path) -> None:
    assert problems(file, CATALOG + "engine = 5\nlisten = 'x'\n", {"PURVEYOR_ENGINE__RUNNING": "1"}) == [
        "listen: must be a table of keys and values",
        "engine: must be a table of keys and values",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [(b"a = ", "is not TOML: Invalid value"), (b"\xff", "is not UTF-8"), (b"#" * 1_048_577, "larger than")],
)
def test_what_is_no_toml_is_named(file: Path, text: bytes, expected: str) -> None:
    file.write_bytes(text)

    with pytest.raises(ConfigError, match=expected) as caught:
        load(file, {})
    assert str(caught.value).startswith(str(file))


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"purveyor\.toml: No such file"):
        load(file, {})


def test_a_value_in_the_wrong_place_is_not_repeated(file: Path) -> None:
    assert not any(
        "hunter2" in text for text in problems(file, CATALOG + '[engine]\nrunning = "hunter2"\nx = "hunter2"')
    )


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86400), (5, 5), (0.5, 0.5)]
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "-5s", "5 weeks", True, -1, float("nan"), float("inf"), None, "9" * 400 + "s"]
)
def test_bad_durations(text: object) -> None:
    with pytest.raises(ValueError, match="must be a number of seconds"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [(5, 5), ("6", 6), ("2KiB", 2048), ("3 MiB", 3 * 1024**2)])
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["[::1]:1", "127.1.2.3:1", "localhost:1", "unix:/run/x"])
def test_loopback_and_sockets_may_be_plain(text: str) -> None:
    assert parse_address(text).loopback


@pytest.mark.parametrize(
    "text", ["[::]:1", "0.0.0.0:1", "192.168.1.1:1", "unix:", "unix:/" + "x" * 200, ":1", "localhost:", 7]
)
def test_everything_else_may_not(text: object) -> None:
    with pytest.raises(ValueError, match=r"must|has at most"):
        parse_address(text)


def paths(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every setting as a dotted path."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from paths(inner, f"{name}.")
        else:
            yield above + name


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()

    assert [path for path in paths(Settings) if f"`{path}`" not in text] == []


def test_the_example_shows_every_setting_with_its_default() -> None:
    text = (ROOT / "examples" / "purveyor.toml").read_text()
    example = load(ROOT / "examples" / "purveyor.toml", {})

    assert [path for path in paths(Settings) if f"{path.split('.')[-1]} = " not in text] == []
    assert example == Settings(
        data_dir=example.data_dir, catalog=example.catalog, listen=example.listen, admin=example.admin
    )
    assert example.listen == ListenSettings(addresses=example.listen.addresses)


def test_the_example_catalog_is_good() -> None:
    environ = {"PURVEYOR_PG_PASSWORD": "x"}

    file = read_catalog(ROOT / "examples" / "catalog.yaml", InstalledFactories(), environ)

    assert [plan.name for plan in file.services[0].plans] == ["shared-small", "schema", "dedicated"]
    assert read_catalog(None, InstalledFactories(), environ).services


def test_keys_come_from_where_the_settings_say(file: Path, tmp_path: Path) -> None:
    file.write_text(CATALOG)

    told = {"PURVEYOR_KEYS__SOURCE": "command", "PURVEYOR_KEYS__COMMAND": "/bin/cat,/run/keys"}
    settings = load(file, {"XDG_STATE_HOME": str(tmp_path), **told})

    assert settings.keys.command == ("/bin/cat", "/run/keys")
    assert settings.keys.timeout.total_seconds() == 10


def test_a_source_of_keys_without_its_command_is_refused(file: Path) -> None:
    found = problems(file, f'{CATALOG}\n[keys]\nsource = "command"\n')

    assert len(found) == 1
    assert found[0].startswith("keys")
    assert "needs `command`" in found[0]
