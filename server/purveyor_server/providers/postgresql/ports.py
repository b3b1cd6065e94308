"""Who holds a port: for the message of a server that cannot start.

Guarantee: never fails; says less where the system shows less (only Linux tells, and of other users only to root).
"""

from __future__ import annotations

from pathlib import Path

LISTEN = "0A"  # TCP state in /proc/net/tcp


def describe_listener(port: int) -> str:
    """One sentence: port `port` is in use, and by which process where that can be found out."""
    found = next((holder for inode in _inodes(port) for holder in _holders(inode)), "another process")
    return f"port {port} of 127.0.0.1 is in use by {found}; it is part of credentials and is not changed"


def _inodes(port: int) -> list[str]:
    inodes = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        fields = [line.split() for line in lines]
        inodes += [f[9] for f in fields if f[3] == LISTEN and int(f[1].rpartition(":")[2], 16) == port]
    return inodes


def _holders(inode: str) -> list[str]:
    wanted = f"socket:[{inode}]"
    holders = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) == wanted for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8").strip()
                holders.append(f"process {process.name} ({name})")
        except OSError:  # it ended meanwhile, or is not ours to look at
            continue
    return holders
