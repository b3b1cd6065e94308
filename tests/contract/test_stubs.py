"""protos/build_stubs.py: exactly the stubs of this tree, once, whole, however many ask at the same time."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_SECONDS = 60
PROTO = """syntax = "proto3";
package purveyor.v1;
message Thing { string name = 1; }
"""
SERVICE = """syntax = "proto3";
package purveyor.v1;
import "purveyor/v1/thing.proto";
service ThingService { rpc Get(Thing) returns (Thing); }
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small contract in a folder of its own, with a space in its path."""
    root = tmp_path / "a tree"
    protos = root / "protos/purveyor/v1"
    protos.mkdir(parents=True)
    (root / "clients/python/purveyor").mkdir(parents=True)
    (protos / "thing.proto").write_text(PROTO, encoding="utf-8")
    (protos / "thing_service.proto").write_text(SERVICE, encoding="utf-8")
    for name in ("build_stubs.py", "service_config.json"):
        shutil.copy(ROOT / "protos" / name, root / "protos")
    return root


def start(tree: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(tree / "protos/build_stubs.py")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(tree: Path) -> tuple[int, str, str]:
    with start(tree) as process:
        out, err = process.communicate(timeout=RUN_TIMEOUT_SECONDS)
        return process.returncode, out, err


def made(tree: Path) -> set[str]:
    return {path.name for path in (tree / "clients/python/purveyor/v1").iterdir()}


EXPECTED = {
    ".stubs",
    "__init__.py",
    "service_config.json",
    "thing_pb2.py",
    "thing_pb2.pyi",
    "thing_service_pb2.py",
    "thing_service_pb2.pyi",
    "thing_service_pb2_grpc.py",
    "thing_service_pb2_grpc.pyi",
}


def test_builds_once_and_then_does_nothing(tree: Path) -> None:
    assert run(tree) == (0, "generated clients/python/purveyor/v1\n", "")
    assert made(tree) == EXPECTED
    assert run(tree) == (0, "", "")


def test_several_at_once_build_once(tree: Path) -> None:
    processes = [start(tree) for _ in range(4)]
    outputs = [process.communicate(timeout=RUN_TIMEOUT_SECONDS) for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(out for out, _ in outputs) == ["", "", "", "generated clients/python/purveyor/v1\n"]
    assert made(tree) == EXPECTED
    assert {path.name for path in (tree / "clients/python/purveyor").iterdir()} == {"v1"}


def test_a_removed_proto_takes_its_stubs_along(tree: Path) -> None:
    run(tree)
    (tree / "protos/purveyor/v1/thing_service.proto").unlink()

    assert run(tree)[0] == 0
    assert made(tree) == {name for name in EXPECTED if "service_pb2" not in name}


def test_a_missing_stub_is_made_again(tree: Path) -> None:
    run(tree)
    (tree / "clients/python/purveyor/v1/thing_pb2.py").unlink()

    assert run(tree)[1] != ""
    assert made(tree) == EXPECTED


def test_a_broken_proto_is_named_and_old_stubs_stay(tree: Path) -> None:
    run(tree)
    (tree / "protos/purveyor/v1/thing.proto").write_text(PROTO.replace("string", "sting"), encoding="utf-8")

    code, out, err = run(tree)

    assert (code, out) == (1, "")
    assert "thing.proto" in err
    assert made(tree) == EXPECTED - {".stubs"}


def test_no_proto_is_said_plainly(tree: Path) -> None:
    shutil.rmtree(tree / "protos/purveyor")

    assert run(tree) == (1, "", "build_stubs: no .proto files in protos/purveyor/v1\n")
