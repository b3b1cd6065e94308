"""What a stranger can put into an instance's folder neither leaves it, nor stops its removal, nor harms its neighbours."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from purveyor_server.providers.contract import Permanent, Unreachable
from purveyor_server.providers.directory import removal
from purveyor_server.providers.directory.disk import DATA, MARKER, QUOTA, TOKENS, Disk, RootError
from purveyor_server.providers.directory.entries import is_folder
from purveyor_server.providers.directory.failures import explained
from purveyor_server.providers.directory.measuring import KEPT, Used

NAME = "pv_dir_x"
NOBODY = 65534
DEPTH = 3000  # beyond the recursion limit, the limit of open files and the length of a path
PATIENCE = 20.0
RUN_SECONDS = 60
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make one")


class Home(Disk):
    """A root with one instance in it, and a folder beside the root that must stay as it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "root"), 0o770, None)
        Path(self.path).mkdir()
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "kept").write_text("kept", encoding="utf-8")
        self.outside.chmod(0o755)
        self.build(NAME, {MARKER: b"purveyor:s:u:1", QUOTA: b"{}"})

    @property
    def data(self) -> Path:
        return Path(self.path, NAME, DATA)

    def measured(self) -> Used:
        used = self.used(NAME, PATIENCE)
        assert used is not None
        return used

    def remove(self) -> None:
        self.discard(NAME)
        end = time.monotonic() + PATIENCE
        while not self.empty(NAME):
            assert time.monotonic() < end
        assert self.names() == []
        self.check_outside()

    def check_outside(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["kept"]
        assert (self.outside / "kept").read_text(encoding="utf-8") == "kept"
        assert stat.S_IMODE(self.outside.stat().st_mode) == 0o755


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    with contextlib.suppress(FileNotFoundError):
        remove_deep(Path(made.path))


def remove_deep(path: Path) -> None:
    """What a failed test left may be too deep for the cleaning of temporary folders."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(path)], check=True, timeout=RUN_SECONDS)


def dig(top: Path, depth: int) -> None:
    """A folder in a folder in a folder, by descriptors: the path would be too long."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    file = os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
    os.write(file, b"12345")
    os.close(file)
    os.close(fd)


def test_a_very_deep_tree_is_measured_and_removed_with_few_open_files(home: Home) -> None:
    dig(home.data, DEPTH)
    limits = pytest.importorskip("resource")
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    taken = max(int(path.name) for path in Path("/proc/self/fd").iterdir())

    limits.setrlimit(limits.RLIMIT_NOFILE, (min(soft, taken + KEPT + 20), hard))
    try:
        assert home.measured() == Used(5, DEPTH + 1)
        home.remove()
    finally:
        limits.setrlimit(limits.RLIMIT_NOFILE, (soft, hard))


def test_a_deep_tree_with_branches_is_counted_whole(home: Home) -> None:
    """The way back up past what is held open finds the folders that are still to come."""
    here = home.data
    for _ in range(KEPT + 20):
        for branch in ("a", "b"):
            (here / branch).mkdir()
            (here / branch / "file").write_bytes(b"12")
        here = here / "a"

    assert home.measured() == Used((KEPT + 20) * 4, (KEPT + 20) * 4)
    home.remove()


def test_links_that_point_out_are_not_followed(home: Home) -> None:
    before = home.measured()
    for name, target in (
        ("up", home.outside),
        ("file", home.outside / "kept"),
        ("dangling", "nowhere"),
        ("loop", "loop"),
    ):
        (home.data / name).symlink_to(target)

    assert home.measured().files == before.files + 4
    assert home.measured().bytes < 1000, "the links' own lengths"
    home.remove()


@pytest.mark.parametrize("part", [DATA, TOKENS, MARKER, QUOTA])
def test_a_part_that_became_a_link_leads_nowhere(home: Home, part: str) -> None:
    place = Path(home.path, NAME, part)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(home.outside if part in {DATA, TOKENS} else home.outside / "kept")

    assert home.read(NAME, MARKER) == (None if part == MARKER else b"purveyor:s:u:1")
    assert (home.used(NAME, PATIENCE) is None) == (part == DATA)
    assert home.parts(NAME, TOKENS) == []
    home.take(NAME, TOKENS, "kept")
    home.check_outside()
    home.remove()


def test_a_hard_link_counts_once_and_what_it_names_stays(home: Home) -> None:
    os.link(home.outside / "kept", home.data / "one")
    os.link(home.outside / "kept", home.data / "two")

    assert home.measured() == Used(4, 2)
    home.remove()
    assert (home.outside / "kept").stat().st_nlink == 1


def test_what_is_no_file_is_neither_opened_nor_kept(home: Home) -> None:
    os.mkfifo(home.data / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        with contextlib.chdir(home.data):  # a socket's path is short
            listening.bind("socket")

        assert home.measured() == Used(0, 2)
        home.remove()


@needs_root
def test_devices_go(home: Home) -> None:
    for name, kind in (("null", stat.S_IFCHR), ("disk", stat.S_IFBLK)):
        try:
            os.mknod(home.data / name, kind | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("no devices can be made here")

    assert home.measured() == Used(0, 2)
    home.remove()


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "link"])
@pytest.mark.parametrize("part", [MARKER, QUOTA])
def test_a_file_of_the_brokers_that_became_something_else_is_no_file(home: Home, part: str, kind: str) -> None:
    """Nothing waits for a writer of the pipe, and the removal ends although the marker has content."""
    place = Path(home.path, NAME, part)
    place.unlink()
    match kind:
        case "fifo":
            os.mkfifo(place)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(place.parent):
                bound.bind(part)
        case "folder":
            (place / "inner" / "more").mkdir(parents=True)
        case "link":
            place.symlink_to(home.outside / "kept")

    assert home.read(NAME, part) is None
    home.remove()


def test_tokens_that_are_no_folder_are_this_instances_trouble_alone(home: Home) -> None:
    """Not Unreachable, which would stop the work of every other instance."""
    Path(home.path, NAME, TOKENS).rmdir()
    Path(home.path, NAME, TOKENS).symlink_to(home.outside)

    with pytest.raises(Permanent, match="not as the broker made it"), explained("ensure"):
        home.put(NAME, (TOKENS, "token"), b"secret")
    home.check_outside()


def test_a_root_that_is_gone_is_everybodys(home: Home) -> None:
    Path(home.path).rename(f"{home.path}.away")

    with pytest.raises(Unreachable), explained("observe"):
        home.used(NAME, PATIENCE)
    with pytest.raises(RootError):
        home.read(NAME, MARKER)
    Path(f"{home.path}.away").rename(home.path)


def test_entries_that_change_between_look_and_use_are_looked_at_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder becomes a link to the outside, a file becomes a folder, an entry vanishes: each right after it was looked at."""
    for name in ("becomes-link", "goes"):
        (home.data / name).mkdir()
        (home.data / name / "inner").touch()
    (home.data / "becomes-folder").touch()
    look, pending = is_folder, {"becomes-link", "becomes-folder", "goes"}

    def change_after_look(parent: int, name: str) -> bool:
        seen = look(parent, name)
        if name in pending:
            pending.remove(name)
            if name == "becomes-folder":
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, dir_fd=parent)
            else:
                os.rename(name, f"aside-{name}", src_dir_fd=parent, dst_dir_fd=parent)
            if name == "becomes-link":
                os.symlink(home.outside, name, dir_fd=parent)
        return seen

    monkeypatch.setattr(removal, "is_folder", change_after_look)
    home.remove()

    assert not pending


def test_a_folder_that_flips_to_a_link_all_the_time_never_leads_out(home: Home) -> None:
    """Somebody exchanges a folder and a link as fast as he can while the tree is measured and removed."""
    flips, spare, link = (home.data / name for name in ("flips", "spare", "link"))
    link.symlink_to(home.outside)
    spare.mkdir()
    over, ready = threading.Event(), threading.Event()

    def flip() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                spare.rename(flips)
            with contextlib.suppress(OSError):
                flips.rename(spare)
                link.rename(flips)
                flips.rename(link)
            ready.set()

    flipping = threading.Thread(target=flip)
    flipping.start()
    try:
        assert ready.wait(PATIENCE)
        for _ in range(200):
            assert home.measured().bytes < 1000
        home.remove()
    finally:
        over.set()
        flipping.join(PATIENCE)
    home.check_outside()


def test_a_wide_tree_is_removed_in_chunks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is looked at between folders too, not only within one."""
    for number in range(50):
        (home.data / str(number) / "inner").mkdir(parents=True)
    home.discard(NAME)
    monkeypatch.setattr("purveyor_server.providers.directory.disk.CHUNK_SECONDS", -1.0)
    runs = 0
    while not home.empty(NAME):
        runs += 1
        assert runs < 1000

    assert runs > 10
    assert home.names() == []


@needs_root
def test_files_of_strangers_go_and_are_not_given_away(home: Home) -> None:
    theirs = home.data / "theirs"
    theirs.mkdir()
    (theirs / "file").write_bytes(b"123")
    for path in (theirs / "file", theirs):
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0)

    home.build(NAME, {})  # again, as after a crash: what is inside keeps its owner
    assert theirs.stat().st_uid == NOBODY
    assert home.measured() == Used(3, 2)
    home.remove()


@needs_root
@pytest.mark.parametrize("where", ["data", "data/inner"])
def test_a_mount_point_is_neither_measured_nor_emptied(home: Home, where: str) -> None:
    """A folder of the same file system is mounted, so that its device tells nothing."""
    place = Path(home.path, NAME, where)
    place.mkdir(exist_ok=True)
    script = (
        "import errno, sys\n"
        "from tests.provider_contract.test_directory_hostile import NAME, PATIENCE, Disk\n"
        "disk = Disk(sys.argv[1], 0o770, None)\n"
        "print(disk.used(NAME, PATIENCE))\n"
        "disk.discard(NAME)\n"
        "try: print(disk.empty(NAME))\n"
        "except OSError as error: print(errno.errorcode[error.errno])\n"
    )
    mounting = 'mount --bind "$3" "$2" && exec "$0" -c "$1" "$4"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [
        "unshare",
        "-m",
        "bash",
        "-c",
        mounting,
        sys.executable,
        script,
        str(place),
        str(home.outside),
        home.path,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS, env=environment)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")

    used, answer = done.stdout.splitlines()
    assert answer == "EBUSY", done.stderr
    if where == "data/inner":
        assert used == "Used(bytes=0, files=1, gap='a folder is a mount point')"
    home.check_outside()
    assert home.empty(NAME), "no mount is left in this namespace"


# Python itself may be where another user cannot start it: the rights are dropped when all is loaded.
ORDINARY = f"""
import ctypes, os, sys
from pathlib import Path
from purveyor_server.providers.contract import RightsMissing
from purveyor_server.providers.directory.entries import is_folder
from purveyor_server.providers.directory.failures import explained
from tests.provider_contract.test_directory_hostile import DATA, NAME, PATIENCE, Disk, Home
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # /proc/self is the new user's
"""


def as_ordinary_user(script: str, folder: Path) -> str:
    """The output of a script that is run by an OS user without special rights; this one, if it has none."""
    command = [sys.executable, "-c", ORDINARY + script, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_SECONDS, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every OS user may enter."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        yield Path(path)


CLOSED = """
home = Home(Path(sys.argv[1]))
(home.data / "closed" / "inner" / "more").mkdir(parents=True)
(home.data / "listed" / "inner").mkdir(parents=True)
for path, mode in (("closed/inner/more", 0), ("closed/inner", 0), ("closed", 0), ("listed", 0o400)):
    (home.data / path).chmod(mode)
print(home.measured())
home.data.chmod(0)
Path(home.path, NAME).chmod(0)
home.remove()
print("removed")
"""


def test_closed_folders_are_said_to_be_unmeasured_and_go(shared: Path) -> None:
    used, end = as_ordinary_user(CLOSED, shared).splitlines()

    assert used == "Used(bytes=0, files=3, gap='a folder is closed to the broker')"
    assert end == "removed"


@needs_root
def test_strangers_folders_that_are_closed_are_an_operators_trouble(shared: Path) -> None:
    """An ordinary broker removes what it may: an empty one goes, a full one is told."""
    as_ordinary_user("Home(Path(sys.argv[1]))", shared)
    root = shared / "root"
    for name in ("empty", "full"):
        theirs = root / NAME / DATA / name
        theirs.mkdir(mode=0o700)
        if name == "full":
            (theirs / "file").touch()
    script = (
        "disk = Disk(sys.argv[1] + '/root', 0o770, None)\n"
        "disk.discard(NAME)\n"
        "try:\n"
        "    with explained('absent'): disk.empty(NAME)\n"
        "except RightsMissing as error: print(error.message)\n"
    )

    said = as_ordinary_user(script, shared)

    assert said == "the broker's OS user lacks a right in the folders\n"
    assert [path.name for path in (root / f".{NAME}.trash" / DATA).iterdir()] == ["full"]
