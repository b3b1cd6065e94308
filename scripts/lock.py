"""Resolve the lock files: versions and sha256 hashes for every platform and Python this project runs on, no addresses.

Guarantee: demo.txt is resolved under dev.txt, so both name the same version of everything they share and can be installed
into one environment in any order. Existing pins are kept unless `--upgrade` is given.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).with_name("uv")
COMMON = (
    *("--extra", "all", "--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--quiet"),
    *("--custom-compile-command", "make lock"),
)
LOCKS = {
    "requirements/dev.txt": ("--group", "dev"),
    "requirements/demo.txt": ("--group", "build", "--constraint", "requirements/dev.txt"),
}


def lock(target: str, selection: tuple[str, ...], extra: list[str]) -> None:
    """Write one lock file. Raises CalledProcessError when there is no solution."""
    command = [str(UV), "pip", "compile", "pyproject.toml", *COMMON, *selection, *extra, "--output-file", target]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    """Resolve all locks in order; the arguments go to uv (for example --upgrade). Returns the exit code."""
    for target, selection in LOCKS.items():
        try:
            lock(target, selection, sys.argv[1:])
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"lock: {target} could not be resolved\n")
            return error.returncode
        sys.stdout.write(f"locked {target}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
