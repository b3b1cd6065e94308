"""Generate the Python stubs of the contract into clients/python/purveyor/v1, and put the service config beside them.

Guarantee: after `build()` the folder holds the stubs of exactly the .proto files of this tree, made by the installed tools,
and nothing else; when that is already so, no tool is started. Several processes may run it at once: one builds, the others
wait and find the work done. A reader never sees half a file.
Limit: while a changed contract is being built, a reader may see new and old files side by side for a few milliseconds.

Used as the hatch build hook (wheel and editable install) and as `python protos/build_stubs.py` (`make stubs`).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = "purveyor/v1"
TARGET = ROOT / "clients" / "python" / PACKAGE
STAMP = ".stubs"
CONFIG = (
    PROTOS / "service_config.json"
)  # read by the client: importlib.resources.files("purveyor.v1") / "service_config.json"
TOOLS = ("grpcio-tools", "mypy-protobuf")
PROTOC_TIMEOUT_SECONDS = 120
INIT = (
    '"""The generated messages and stubs of the contract purveyor.v1 (made by protos/build_stubs.py; do not edit)."""\n'
)


class StubsError(Exception):
    """The stubs could not be generated; the message says what to do."""


class StubsBuildHook(BuildHookInterface[Any]):
    """Hatch entry: generates the stubs before hatchling collects the files of a wheel, an sdist or an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the stubs. Raises StubsError, which ends the build."""
        del version, build_data
        build()


def build() -> bool:
    """Bring the stubs up to date. Returns whether anything had to be generated. Raises StubsError."""
    sources = sorted((PROTOS / PACKAGE).glob("*.proto"))
    if not sources:
        message = f"no .proto files in protos/{PACKAGE}"
        raise StubsError(message)
    with _only_one():
        expected = _fingerprint(sources)
        if _is_current(expected):
            return False
        _generate(sources, expected)
        return True


def _fingerprint(sources: list[Path]) -> str:
    """Digest of everything that decides the output: the sources, the tools and this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for tool in TOOLS:
        digest.update(f"{tool}=={version(tool)}\n".encode())
    for source in (*sources, CONFIG):
        digest.update(f"{source.name}\n".encode() + source.read_bytes())
    return digest.hexdigest()


def _is_current(expected: str) -> bool:
    """Whether the stamp fits and every file it lists is still there."""
    try:
        found, *files = (TARGET / STAMP).read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ValueError):
        return False
    return found == expected and all((TARGET / name).is_file() for name in files)


def _generate(sources: list[Path], fingerprint: str) -> None:
    """Generate beside the target, then move file by file; the stamp goes last, so an interrupted run is done again."""
    TARGET.mkdir(parents=True, exist_ok=True)
    (TARGET / STAMP).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".stubs-", dir=TARGET.parent) as scratch:
        _run_protoc(sources, Path(scratch))
        made = Path(scratch) / PACKAGE
        _remove_empty(made)
        (made / "__init__.py").write_text(INIT, encoding="utf-8")
        shutil.copyfile(CONFIG, made / CONFIG.name)
        names = sorted(path.name for path in made.iterdir())
        for name in names:
            (made / name).replace(TARGET / name)
        _remove_others(names)
        stamp = Path(scratch) / STAMP
        stamp.write_text("\n".join([fingerprint, *names]) + "\n", encoding="utf-8")
        stamp.replace(TARGET / STAMP)


def _run_protoc(sources: list[Path], out: Path) -> None:
    """Run protoc with its three generators. Only the asyncio types of the services are written: nothing here is synchronous."""
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"),
        *(f"--python_out={out}", f"--grpc_python_out={out}"),
        *(f"--plugin=protoc-gen-mypy={_plugin('protoc-gen-mypy')}", f"--mypy_out=quiet:{out}"),
        *(
            f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc')}",
            f"--mypy_grpc_out=quiet,only_async:{out}",
        ),
        *(str(source) for source in sources),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PROTOC_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired as late:
        message = f"protoc did not finish within {PROTOC_TIMEOUT_SECONDS} s"
        raise StubsError(message) from late
    if done.returncode != 0:
        message = f"protoc failed:\n{done.stderr.strip()}"
        raise StubsError(message)


def _plugin(name: str) -> str:
    """Find a protoc plugin: beside this interpreter first, then on PATH (where an isolated build puts it)."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if found is None:
        message = f"{name} not found: install the locked tools with `make setup`, or `pip install mypy-protobuf`"
        raise StubsError(message)
    return found


def _remove_empty(made: Path) -> None:
    """Drop the grpc modules of files without a service (buf lint keeps services in *_service.proto)."""
    for path in made.glob("*_pb2_grpc.py*"):
        if "_service_pb2_grpc" not in path.name:
            path.unlink()


def _remove_others(names: list[str]) -> None:
    """Delete what the contract no longer has, so that a removed .proto cannot be imported by accident."""
    keep = {*names, STAMP, "__pycache__"}
    for path in TARGET.iterdir():
        if path.name not in keep:
            path.unlink()


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold a lock on the protos folder itself; where there is no flock (Windows) runs are not kept apart."""
    try:
        import fcntl  # noqa: PLC0415 - not there on Windows
    except ImportError:
        yield
        return
    import os  # noqa: PLC0415 - only this branch needs it

    folder = os.open(PROTOS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def main() -> int:
    """Entry of `make stubs`. Returns the exit code."""
    try:
        made = build()
    except StubsError as error:
        sys.stderr.write(f"build_stubs: {error}\n")
        return 1
    if made:
        sys.stdout.write(f"generated {TARGET.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
