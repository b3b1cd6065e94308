"""Addresses: which are taken, which are refused, and that a living server keeps its socket."""

from __future__ import annotations

import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from purveyor_server.kit.listeners import (
    ListenError,
    Port,
    SocketPlace,
    UnixSocket,
    parse_address,
    probe_port,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pv-") as path:
        yield Path(path)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("localhost:0", "127.0.0.1:0"),
        ("127.8.9.1:1", "127.8.9.1:1"),
        ("[::1]:7", "[::1]:7"),
        ("unix:/run/x/s", "unix:/run/x/s"),
        ("unix:///run/x/s", "unix:/run/x/s"),
    ],
)
def test_addresses_of_this_machine_are_taken(text: str, target: str) -> None:
    assert parse_address(text).target == target


def test_a_relative_socket_becomes_absolute() -> None:
    address = parse_address("unix:run/s")

    assert isinstance(address, UnixSocket)
    assert address.path == Path.cwd() / "run" / "s"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0:1", "needs TLS"),
        ("[::]:1", "needs TLS"),
        ("10.0.0.1:1", "needs TLS"),
        ("example.com:1", "needs TLS"),
        (":1", "needs TLS"),
        ("127.0.0.1", "host:port"),
        ("127.0.0.1:", "host:port"),
        ("127.0.0.1:x", "host:port"),
        ("127.0.0.1:70000", "host:port"),
        ("unix:", "path of the socket is missing"),
        ("unix-abstract:x", "host:port"),
        ("unix:/" + "x" * 200, "at most 107 bytes"),
    ],
)
def test_other_addresses_are_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(ListenError, match=why) as caught:
        parse_address(text)

    assert caught.value.address == text


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ListenError, match=f"127.0.0.1:{port}: the port is in use"):
            probe_port(Port("127.0.0.1", port))


def test_an_address_that_this_machine_lacks_is_named() -> None:
    with pytest.raises(ListenError, match="cannot"):
        probe_port(Port("::1%nonexistent", 1))


def test_the_directory_is_made_private(folder: Path) -> None:
    place = SocketPlace(UnixSocket(folder / "run" / "s"))

    place.claim()

    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
    place.release()


def test_a_directory_that_others_can_enter_is_refused(folder: Path) -> None:
    folder.chmod(0o755)

    with pytest.raises(ListenError, match="chmod 700"):
        SocketPlace(UnixSocket(folder / "s")).claim()


def test_a_directory_of_somebody_else_is_refused() -> None:
    directory = Path("/proc/sys") if Path("/").stat().st_uid == 0 else Path("/")

    with pytest.raises(ListenError, match=r"belongs to another user|others can enter"):
        SocketPlace(UnixSocket(directory / "s")).claim()


def test_a_socket_in_use_is_never_taken_over(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(path))
        living.listen()

        with pytest.raises(ListenError, match="a living server uses this socket"):
            SocketPlace(UnixSocket(path)).claim()

        assert path.exists()


def test_two_that_start_at_once_do_not_share(folder: Path) -> None:
    first, second = SocketPlace(UnixSocket(folder / "s")), SocketPlace(UnixSocket(folder / "s"))
    first.claim()

    with pytest.raises(ListenError, match="a living server uses this socket"):
        second.claim()

    first.release()
    second.claim()
    second.release()


def test_a_stale_socket_is_removed(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()

    place = SocketPlace(UnixSocket(path))
    place.claim()

    assert not path.exists()
    place.release()


def test_a_file_in_the_way_is_left_alone(folder: Path) -> None:
    (folder / "s").write_text("mine", encoding="utf-8")

    with pytest.raises(ListenError, match="no socket"):
        SocketPlace(UnixSocket(folder / "s")).claim()

    assert (folder / "s").read_text(encoding="utf-8") == "mine"
