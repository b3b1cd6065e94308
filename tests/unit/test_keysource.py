"""Keys from a variable or a command: bounded, no shell, nothing of a key in a message."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import pytest

from purveyor_server.security.keyfile import KeyFile
from purveyor_server.security.keysource import CommandKeys, EnvironmentKeys
from purveyor_server.security.keytext import KeyFileError, KeyTrouble, fresh_key, line_of, written

KEYS = {"k2": fresh_key(), "k1": fresh_key()}
SECONDS = 20.0


def printing(code: str, seconds: float = SECONDS) -> CommandKeys:
    return CommandKeys((sys.executable, "-c", code), seconds)


def refused(source: CommandKeys | EnvironmentKeys) -> KeyFileError:
    with pytest.raises(KeyFileError) as caught:
        source.load()
    return caught.value


@pytest.mark.parametrize("text", ["{0}; {1}", "purveyor-keys 1\n{0}\n{1}\n", " {0}\n# note\n{1}"])
def test_a_variable_holds_keys(text: str) -> None:
    lines = [line_of(label, key) for label, key in KEYS.items()]
    source = EnvironmentKeys("KEYS", {"KEYS": text.format(*lines)})

    assert list(source.load().items()) == list(KEYS.items())


def test_a_variable_is_taken_away_and_remembered() -> None:
    environ = {"KEYS": line_of("k1", KEYS["k1"])}
    source = EnvironmentKeys("KEYS", environ)

    assert source.load() == source.load() == {"k1": KEYS["k1"]}
    assert environ == {}


def test_a_variable_that_is_absent_or_wrong_is_named() -> None:
    with pytest.raises(KeyFileError, match="the environment variable KEYS holds no keys") as caught:
        EnvironmentKeys("KEYS", {}).first()
    assert caught.value.trouble is KeyTrouble.LOST

    failure = refused(EnvironmentKeys("KEYS", {"KEYS": "k1 s3cret-but-no-key"}))
    assert failure.trouble is KeyTrouble.MALFORMED
    assert "s3cret" not in str(failure)


def test_a_command_prints_keys(tmp_path: Path) -> None:
    path = tmp_path / "printed"
    path.write_bytes(written(KEYS))

    assert CommandKeys(("/bin/cat", str(path)), SECONDS).load() == KEYS


def test_arguments_of_a_command_see_no_shell(tmp_path: Path) -> None:
    path = tmp_path / "$(echo made)"
    path.write_bytes(written(KEYS))

    assert CommandKeys(("/bin/cat", str(path)), SECONDS).load() == KEYS


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('s3cret'); sys.exit(3)", "ended with code 3"),
        ("print('s3cret')", "holds no keys"),
        ("print('s3cret' * 20_000)", "more than 65536 bytes"),
        ("import os; print('s3cret', flush=True); os.close(1); os.kill(os.getpid(), 9)", "ended with code -9"),
    ],
)
def test_a_command_that_fails_says_how_and_not_what_it_printed(code: str, words: str) -> None:
    failure = refused(printing(code))

    assert words in failure.message
    assert "s3cret" not in str(failure)


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    fifo = tmp_path / "held-open"
    os.mkfifo(fifo)
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    code = (
        "import os, subprocess, sys\n"
        f"os.set_inheritable(os.open({str(fifo)!r}, os.O_WRONLY), True)\n"
        "hang = [sys.executable, '-c', 'import signal; signal.pause()']\n"
        "subprocess.Popen(hang, close_fds=False)\n"
        "subprocess.run(hang)\n"
    )

    # The time-out has to leave a slow machine the time to start an interpreter.
    assert "did not answer within 3 s" in refused(printing(code, 3.0)).message

    poll = select.poll()
    poll.register(end, select.POLLHUP)
    assert poll.poll(SECONDS * 1000), "a child still holds its end open"
    os.close(end)


def test_a_command_that_is_not_there_is_named() -> None:
    assert "No such file" in refused(CommandKeys(("/no/such/command",), SECONDS)).message


def test_only_the_key_file_is_changed_by_this_program(tmp_path: Path) -> None:
    assert not EnvironmentKeys("KEYS", {}).remove("k1")
    assert not printing("").remove("k1")
    source = KeyFile(tmp_path / "keys")
    first = source.first()

    assert source.add() == "k2"
    assert list(source.load()) == ["k2", "k1"]
    assert source.remove("k1")
    assert not source.remove("k1")
    assert list(source.load()) == ["k2"]
    assert first["k1"] not in source.path.read_bytes()
    assert source.path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_a_label_is_not_given_twice(tmp_path: Path) -> None:
    source = KeyFile(tmp_path / "keys")
    before = source.first()

    with pytest.raises(KeyFileError, match="no new label"):
        source.add("k1")
    with pytest.raises(KeyFileError, match="no new label"):
        source.add("Not A Label")
    assert source.load() == before
