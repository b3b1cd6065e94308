"""A folder of bindings, `$SERVICE_BINDING_ROOT`, into which one binding at a time is written whole.

Guarantee: whoever opens `ROOT/NAME` finds every entry of one version: a new folder is written and synced beside it, then
the two change places in one system call. Whatever ends the process leaves the old version or the new one, and the next
write removes what was left. Files are 0600, folders 0700. No symbolic link is followed, from `/` down to the entries; a root
that another user owns or can write to, a folder that was not written here, and one of another binding are refused by name.
Limit: a reader opens the folder, not each file by its path, to be sure of one version. The version it holds may be removed
under it: `type` goes first, so a listing without `type`, or an entry that is not found, means to open the folder again.
Access lists are not looked at. Linux, on a file system that swaps folders (ext4, xfs, btrfs, tmpfs, overlayfs; not NFS).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import stat
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor.errors import AbortedError, FailedPreconditionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

WORKSHOP = ".purveyor"  # beside the bindings: drafts, and the lock
MARKER = ".purveyor"  # in a binding: whose it is
LOCK_SECONDS = 5.0
LOCK_POLL_SECONDS = 0.02
MAX_MARKER_BYTES = 4096
_SWAP = 2  # RENAME_EXCHANGE
_CANNOT_SWAP = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write(
    root: str,
    name: str,
    entries: Mapping[str, bytes],
    owner: Mapping[str, str],
    reached: Callable[[str], None] = lambda _: None,
) -> str:
    """Make `root/name` hold exactly these entries, for the binding that `owner` describes. Returns its path.

    `name` and the entries' names must be plain ones, see `projection`; `reached` is told the stages, for tests that break off.
    Raises FailedPreconditionError, AbortedError when another process writes for too long, and OSError.
    """
    path = os.path.join(root, name)  # noqa: PTH118 - pathlib would fold `..` and `.`
    with ExitStack() as stack:
        top = stack.enter_context(_opened(root))
        _judge(top, root)
        shop = stack.enter_context(_workshop(top, root))
        _lock(shop, root)
        _clear(shop)
        replaces = _is_ours(top, name, path, owner)
        draft = f"draft-{uuid4().hex}"
        _fill(shop, draft, entries, owner, reached)
        reached("written")
        if replaces:
            _swap(top, name, shop, draft, root)
        else:
            os.rename(draft, name, src_dir_fd=shop, dst_dir_fd=top)
        reached("swapped")
        os.fsync(top)
        _clear(shop, reached)
        os.fsync(shop)
    return path


def held(root: str, name: str) -> dict[str, bytes] | None:
    """The entries of `root/name` as they are, for whoever wants to know whether they change; None when no folder of ours is there.

    Raises FailedPreconditionError and OSError as `write` does.
    """
    with ExitStack() as stack:
        top = stack.enter_context(_opened(root))
        _judge(top, root)
        shop = stack.enter_context(_workshop(top, root))
        _lock(shop, root)
        if not _exists(top, name):
            return None
        folder = stack.enter_context(_closing(_open_folder(name, top, f"{root}/{name}")))
        if _marker(folder) is None:
            return None
        names = [entry for entry in os.listdir(folder) if entry != MARKER]  # noqa: PTH208 - of a descriptor
        return {entry: _content(folder, entry) for entry in names}


def _content(folder: int, entry: str) -> bytes:
    number = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(number, "rb") as stream:
        return stream.read()


@contextmanager
def _closing(number: int) -> Iterator[int]:
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def _opened(root: str) -> Iterator[int]:
    """The root, reached part by part without a symbolic link; its last part is made if it is missing."""
    parts = [part for part in root.split("/") if part not in {"", "."}]
    if not root:
        raise FailedPreconditionError("the binding root is empty: is SERVICE_BINDING_ROOT set?")
    here = os.open("/" if root.startswith("/") else ".", _FOLDER)
    try:
        for index, part in enumerate(parts):
            shown = ("/" if root.startswith("/") else "") + "/".join(parts[: index + 1])
            if index == len(parts) - 1:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=here)
            below = _open_folder(part, here, shown)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _open_folder(name: str, parent: int, shown: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            link = stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            kind = "a symbolic link, which is not followed" if link else "not a folder"
            raise FailedPreconditionError(f"{shown} is {kind}") from error
        if error.errno == errno.ENOENT:
            raise FailedPreconditionError(f"{shown} does not exist") from error
        raise


def _judge(folder: int, shown: str) -> None:
    """Raises FailedPreconditionError for a folder in which somebody else could plant or replace things."""
    found = os.fstat(folder)
    if found.st_uid != os.geteuid():
        raise FailedPreconditionError(f"{shown} belongs to another user (uid {found.st_uid})")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FailedPreconditionError(f"{shown} can be written to by others (mode {stat.S_IMODE(found.st_mode):04o})")


@contextmanager
def _workshop(top: int, root: str) -> Iterator[int]:
    with suppress(FileExistsError):
        os.mkdir(WORKSHOP, 0o700, dir_fd=top)
    shown = f"{root}/{WORKSHOP}"
    with _closing(_open_folder(WORKSHOP, top, shown)) as shop:
        _judge(shop, shown)
        yield shop


def _lock(shop: int, root: str) -> None:
    """One writer at a time, until the folder is closed. Raises AbortedError."""
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(shop, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise AbortedError(f"another process is writing to {root}") from None
            time.sleep(LOCK_POLL_SECONDS)
        else:
            return


def _is_ours(top: int, name: str, path: str, owner: Mapping[str, str]) -> bool:
    """Whether `name` is this binding's folder already. Raises FailedPreconditionError for anything else of that name."""
    if not _exists(top, name):
        return False
    with _closing(_open_folder(name, top, path)) as folder:
        found = _marker(folder)
        if found is None:
            raise FailedPreconditionError(
                f"{path} was not written here and stays as it is; give another --binding-name"
            )
        if found != dict(owner):
            whose = "/".join(str(found.get(part, "?")) for part in owner)
            raise FailedPreconditionError(f"{path} is another binding's ({whose}); give another --binding-name")
        with os.scandir(folder) as listed:
            for entry in listed:
                if entry.is_dir(follow_symlinks=False):
                    raise FailedPreconditionError(f"{path}/{entry.name} is a folder, which nobody here made")
    return True


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _marker(folder: int) -> dict[str, object] | None:
    """What the folder says about itself; None when it does not."""
    try:
        number = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(number, "rb") as stream:
        try:
            found = json.loads(stream.read(MAX_MARKER_BYTES))
        except (OSError, ValueError):
            return None
    return found if isinstance(found, dict) else None


def _fill(
    shop: int, draft: str, entries: Mapping[str, bytes], owner: Mapping[str, str], reached: Callable[[str], None]
) -> None:
    """Write a whole version; nobody looks for it under this name."""
    os.mkdir(draft, 0o700, dir_fd=shop)
    with _closing(os.open(draft, _FOLDER, dir_fd=shop)) as folder:
        os.fchmod(folder, 0o700)  # whatever the umask took away
        for entry, content in {MARKER: json.dumps(dict(owner)).encode(), **entries}.items():
            number = os.open(entry, _NEW_FILE, 0o600, dir_fd=folder)
            with os.fdopen(number, "wb") as stream:
                os.fchmod(number, 0o600)
                stream.write(content)
                stream.flush()
                os.fsync(number)
            reached(f"entry {entry}")
        os.fsync(folder)
    os.fsync(shop)


def _swap(top: int, name: str, shop: int, draft: str, root: str) -> None:
    """Let the two folders change places at once. Raises FailedPreconditionError where that cannot be done."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(top, os.fsencode(name), shop, os.fsencode(draft), _SWAP) != 0:
        number = ctypes.get_errno() if rename is not None else errno.ENOSYS
        if number in _CANNOT_SWAP:
            raise FailedPreconditionError(
                f"the file system of {root} cannot swap two folders at once; nothing was changed"
            )
        raise OSError(number, os.strerror(number), f"{root}/{name}")


def _clear(shop: int, reached: Callable[[str], None] = lambda _: None) -> None:
    """Remove versions that nobody looks for: the one just replaced, and what a crash left."""
    for name in os.listdir(shop):
        with _closing(_open_folder(name, shop, f"{WORKSHOP}/{name}")) as folder:
            for entry in sorted(os.listdir(folder), key=lambda entry: entry != "type"):  # noqa: PTH208 - of a descriptor
                os.unlink(entry, dir_fd=folder)
                reached(f"removed {entry}")
        os.rmdir(name, dir_fd=shop)
