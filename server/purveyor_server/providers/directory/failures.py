"""What the operating system's errors mean for the engine. Its texts go to `detail` only."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from purveyor_server.providers.contract import (
    Ambiguous,
    Permanent,
    ProviderError,
    Retryable,
    RightsMissing,
    Unreachable,
)
from purveyor_server.providers.directory.disk import RootError

FULL = {errno.ENOSPC, errno.EDQUOT}
BUSY = {errno.EBUSY, errno.ENOTEMPTY, errno.EEXIST, errno.EMFILE, errno.ENFILE, errno.ENOLCK}
AWAY = {errno.ESTALE, errno.EHOSTDOWN, errno.ENODEV, errno.ENOTCONN}
MISPLACED = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: OSError, doing: str) -> ProviderError:
    """The failure to raise for `error` met while doing `doing` (a constant name)."""
    detail = f"{doing}: {errno.errorcode.get(error.errno or 0, 'unknown')}: {error.strerror}"
    if error.errno in FULL:
        return Retryable("the disk of the folders is full", detail)
    if error.errno in CLOSED:
        return RightsMissing("the broker's OS user lacks a right in the folders", detail)
    if error.errno in MISPLACED and not isinstance(error, RootError):
        # Never Unreachable: that opens the circuit of all instances, and a consumer can bring this one about.
        return Permanent("the instance's folder is not as the broker made it", detail)
    if error.errno in AWAY | MISPLACED:
        return Unreachable("the root of the folders is not there", detail)
    if error.errno in BUSY:
        return Retryable("the folders are busy", detail)
    return Ambiguous("the disk of the folders failed; it is being looked into", detail)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn OSError into the provider's failures."""
    try:
        yield
    except OSError as error:
        raise explain(error, doing) from error
