#!/bin/sh
# Make or refresh .venv from a lock file: `scripts/setup.sh demo` or `scripts/setup.sh dev`.
# Guarantee: afterwards .venv holds at least what the lock names, by version and hash, and this clone as an editable install.
# A stamp keeps what was installed (checksums of lock and pyproject, place of the clone); nothing runs when it still fits.
# dev contains demo, so after `dev` the set-up of `demo` has nothing to do. pip reads PIP_* and its own files as usual.
set -eu
cd "$(dirname "$0")/.."

kind=${1:?usage: scripts/setup.sh demo|dev}
case $kind in
demo | dev) ;;
*)
    echo "setup: unknown kind '$kind' (demo or dev)" >&2
    exit 2
    ;;
esac

wanted() { # what the stamp must say for this kind
    cksum "requirements/$1.txt" pyproject.toml
    pwd
}

fits() {
    [ -f ".venv/.stamp-$1" ] && [ "$(wanted "$1")" = "$(cat ".venv/.stamp-$1")" ]
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() { # $PYTHON first, then python3, then the named ones
    for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.14; do
        if is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: Python 3.11 or newer is needed; found: $(python3 --version 2>&1 || echo 'no python3')." >&2
    echo "setup: install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2
    return 1
}

make_venv() {
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        echo "setup: $python has no venv module (on Debian and Ubuntu: apt install python3-venv)." >&2
        return 1
    fi
    echo "setup: making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
}

pip() {
    .venv/bin/python -m pip --disable-pip-version-check "$@"
}

if fits dev || fits "$kind"; then
    exit 0
fi
was_moved() { # installed programs name their interpreter by its full path
    for mark in .venv/.stamp-*; do
        if [ -f "$mark" ] && [ "$(tail -n 1 "$mark")" != "$(pwd)" ]; then
            return 0
        fi
    done
    return 1
}

if was_moved || ! is_new_enough .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    make_venv
fi
# An environment made by hand is kept: pip installs only what is missing in it.
echo "setup: installing requirements/$kind.txt"
pip install --quiet --require-hashes -r "requirements/$kind.txt"
pip install --quiet --no-deps --no-build-isolation --editable .
wanted "$kind" >".venv/.stamp-$kind"
