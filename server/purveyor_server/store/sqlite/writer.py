"""The writer: one thread, one connection, group commit.

Guarantee: commands run in the order of their arrival, each under a savepoint; those that arrive while a commit runs go
into the next transaction together. An answer is given only after COMMIT. A batch that is lost as a whole is rolled back
and run again one command per transaction, so that only the guilty one fails. A COMMIT whose outcome is not certain is
answered OUTCOME_UNKNOWN, the connection is thrown away, and `broken` is true until a new one has committed.
A cancelled caller changes nothing: its command runs, its answer is dropped.
Limit: a statement is never interrupted; a disk that hangs makes callers time out with OUTCOME_UNKNOWN.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog
from msgspec.structs import replace

from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.failpoints import hit, is_off
from purveyor_server.store.contract import Commit
from purveyor_server.store.sqlite.errors import (
    FaultLog,
    is_certain,
    loses_batch,
    refusal,
    unavailable,
    unknown,
)
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.transaction import Ledger, Transaction

_log = structlog.get_logger(__name__)

T = TypeVar("T")
Work = Callable[[Transaction], Any]


class Item(NamedTuple):
    """A queued command: its points, its work, and where its answer goes."""

    points: tuple[str, ...]
    work: Work
    answer: asyncio.Future[Any]

    def hit(self, moment: str) -> None:
        """Pass the failpoints of this command at `before`, `during` or `after`."""
        for point in self.points:
            hit(f"{point}.{moment}")


class Answer(NamedTuple):
    """What became of a command: a value, or an error to raise."""

    item: Item
    value: Any
    error: BaseException | None


class Result(NamedTuple):
    """A finished transaction, on its way to the loop."""

    answers: Sequence[Answer]
    ledger: Ledger | None
    commit: Commit | None


class _BatchLost(Exception):  # noqa: N818 - a signal between two functions, never an answer
    def __init__(self, cause: sqlite3.Error, *, begun: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.begun = begun


class _Unknown(Exception):  # noqa: N818 - as above
    pass


class Source(NamedTuple):
    """How the writer gets a connection and what it knows at once: used at the start and after a break."""

    connect: Callable[[], sqlite3.Connection]
    ledger: Callable[[sqlite3.Connection], Ledger]
    probe: Callable[[sqlite3.Connection], None]
    upkeep: Callable[[sqlite3.Connection], None]


class Writer:
    """Runs commands on its thread; `deliver` is called on the loop once per transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        source: Source,
        clock: Clock,
        settings: SqliteSettings,
        epoch: int,
        deliver: Callable[[Result], None],
    ) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._source = source
        self._clock = clock
        self._settings = settings
        self._epoch = epoch
        self._deliver_to = deliver
        self._ledger = source.ledger(connection)
        self.keys: ChainKeys | None = None  # of audit records; changed by commands alone
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._open: deque[tuple[float, asyncio.Future[Any]]] = deque()  # unanswered, with their times; the loop's own
        self._patience: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended = asyncio.Event()
        self._faults = FaultLog()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    @property
    def ledger(self) -> Ledger:
        """The committed state as the writer last left it."""
        return self._ledger

    @property
    def healthy(self) -> bool:
        """Whether the thread runs and holds a connection that works."""
        return self._thread.is_alive() and self._connection is not None and not self._closing

    @property
    def lag(self) -> float:
        """Seconds that the oldest unanswered command has waited."""
        return self._loop.time() - self._open[0][0] if self._open else 0.0

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def submit(self, name: str, work: Callable[[Transaction], T], label: str = "") -> asyncio.Future[T]:
        """Queue a command; raises STORE_UNAVAILABLE when the queue is full or the store is closing."""
        if self._closing or len(self._open) >= self._settings.queue_limit:
            raise unavailable(self._settings.retry_after)
        point = f"store.{name}"
        answer: asyncio.Future[T] = self._loop.create_future()
        item = Item((point, f"{point}.{label}") if label else (point,), work, answer)
        item.hit("before")
        self._open.append((self._loop.time(), answer))
        self._queue.put(item)
        if self._patience is None:
            self._be_patient()
        return answer

    async def close(self) -> None:
        """Finish what was accepted, then end the thread. Raises TimeoutError when that takes too long."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        async with asyncio.timeout(self._settings.close_timeout.total_seconds()):
            await self._ended.wait()
        if self._patience is not None:
            self._patience.cancel()

    # On the loop.

    def _be_patient(self) -> None:
        """One timer for all commands, for the oldest whose caller still waits: one for each cost more than its command."""
        limit = self._settings.command_timeout.total_seconds()
        oldest = next((came for came, answer in self._open if not answer.done()), None)
        self._patience = None if oldest is None else self._loop.call_at(oldest + limit, self._give_up)

    def _give_up(self) -> None:
        """Tell who has waited too long that the outcome is not known."""
        overdue = self._loop.time() - self._settings.command_timeout.total_seconds()
        for came, answer in self._open:
            if came > overdue:
                break
            if not answer.done():
                answer.set_exception(unknown())
        self._be_patient()

    def _deliver(self, result: Result) -> None:
        for item, value, error in result.answers:
            self._open.popleft()  # answers come in the order of their commands
            if item.answer.done():
                continue
            if error is None:
                item.answer.set_result(value)
            else:
                item.answer.set_exception(error)
        self._deliver_to(result)

    # On the thread.

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        except Exception:  # noqa: BLE001 - the last line of defence: the thread must say why it ended
            _log.exception("store writer ended")
        finally:
            self._checkpoint()
            self._drop_connection()
            self._tell(self._ended.set)

    def _serve(self) -> bool:
        """One round; False once everything accepted before the close is answered."""
        batch, last = self._collect()
        if self._connection is None:
            self._reopen()
        if batch:
            self._process(batch)
        return not last

    def _collect(self) -> tuple[list[Item], bool]:
        """The next batch: waits for one command, takes what else is there; True when the store closes after it."""
        batch: list[Item] = []
        wait = None if self._connection is not None else self._settings.reopen_every.total_seconds()
        try:
            item = self._queue.get(timeout=wait)
            while item is not None:
                batch.append(item)
                if len(batch) >= self._settings.batch_limit:
                    return batch, False
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _process(self, batch: list[Item]) -> None:
        if self._connection is None:
            self._answer_all(batch, unavailable(self._settings.retry_after))
            return
        try:
            result = self._transact(batch)
        except _BatchLost as lost:
            self._after_loss(batch, lost)
        except _Unknown:
            self._answer_all(batch, unknown())
        else:
            self._faults.clear()
            self._finish(result)
            self._keep_up()

    def _after_loss(self, batch: list[Item], lost: _BatchLost) -> None:
        """Run a lost batch again, one command per transaction; a lock that never came is not tried again."""
        self._faults.note(lost.cause, "batch")
        if not lost.begun or len(batch) == 1 or is_off("store.rerun"):
            self._answer_all(batch, refusal(lost.cause, self._settings.retry_after))
            return
        for item in batch:
            self._process([item])

    def _answer_all(self, batch: list[Item], error: PurveyorError) -> None:
        self._finish(Result([Answer(item, None, error.again()) for item in batch], None, None))

    def _finish(self, result: Result) -> None:
        if result.ledger is not None:
            self._ledger = result.ledger
            result = self._pass_after(result)
        self._tell(lambda: self._deliver(result))

    def _pass_after(self, result: Result) -> Result:
        """The point between COMMIT and the answers: a process that dies here has committed."""
        try:
            for answer in result.answers:
                answer.item.hit("after")
        except RuntimeError:
            return result._replace(answers=[Answer(a.item, None, unknown()) for a in result.answers])
        return result

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self._closing = True

    def _transact(self, batch: list[Item]) -> Result:
        connection = self._connection
        assert connection is not None
        begun, started = False, time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            begun = True
            transaction = Transaction(connection, self._clock.now(), self._ledger, self._epoch, self.keys)
            answers = [self._run_item(transaction, item) for item in batch]
            ledger, commit = transaction.seal()
        except sqlite3.Error as error:
            self._roll_back(connection)
            raise _BatchLost(error, begun=begun) from error
        self._commit(connection)
        if commit is not None:
            commit = replace(commit, commands=len(batch), seconds=time.monotonic() - started)
        return Result(answers, ledger, commit)

    def _run_item(self, transaction: Transaction, item: Item) -> Answer:
        """One command under its savepoint. Raises only sqlite3.Error, when the batch is lost."""
        transaction.begin_command()
        try:
            value = item.work(transaction)
            item.hit("during")
            transaction.keep()
        except sqlite3.Error as error:
            if loses_batch(error) or not transaction.connection.in_transaction:
                raise
            transaction.undo()
            return Answer(item, None, error)
        except Exception as error:  # noqa: BLE001 - whatever a decision raises is the answer of its command alone
            transaction.undo()
            return Answer(item, None, error)
        return Answer(item, value, None)

    def _commit(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            if self._connection is not None and is_certain(error):
                raise _BatchLost(error, begun=True) from error
            self._faults.note(error, "commit")
            self._drop_connection()
            raise _Unknown from error

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Make sure that no transaction is open; a connection that cannot even do that is thrown away."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._faults.note(error, "rollback")
            self._drop_connection()

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error as error:
            self._faults.note(error, "close")

    def _reopen(self) -> None:
        """Get a connection that commits again. Its probe overwrites whatever a failed COMMIT left in the log."""
        try:
            connection = self._source.connect()
        except sqlite3.Error as error:
            self._faults.note(error, "reopen")
            return
        try:
            self._source.probe(connection)
            self._ledger = self._source.ledger(connection)
        except sqlite3.Error as error:
            self._faults.note(error, "reopen")
            connection.close()
            return
        self._connection = connection
        self._faults.clear()
        _log.info("store writer reopened", at=time.time())

    def _checkpoint(self) -> None:
        """Move the whole log into the file, for a clean end; a reader that is busy leaves it to the next start."""
        if self._connection is None:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            self._faults.note(error, "checkpoint")

    def _keep_up(self) -> None:
        """Work between transactions: the log's bound."""
        if self._connection is None:
            return
        try:
            self._source.upkeep(self._connection)
        except sqlite3.Error as error:
            self._faults.note(error, "upkeep")
