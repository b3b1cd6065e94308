"""The chain of audit records, and its judge.

Guarantee: each record carries an HMAC-SHA256 over the record's chain value before it, its number, the label of its key and
its bytes. Whoever has not the key and changes, removes, adds or moves a record is found, and the place is named. The head
(the newest number and chain value) carries a HMAC of its own, so that records cut off at the end are missed; so does every
checkpoint that retention leaves where it cuts off the oldest.
Limit: whoever puts the whole store back as it was earlier, head included, is found only with an anchor that was kept
elsewhere: a number and its chain value, which the broker logs now and then and every verification prints. Records of the
time before the chain carry nothing.
Source: RFC 2104; B. Schneier, J. Kelsey, "Secure audit logs to support computer forensics" (1999).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

START = bytes(32)  # the chain value before the first record
MAX_FINDINGS = 100  # that are told one by one; the others are counted
_RECORD, _HEAD, _CUT = b"purveyor audit record 1\0", b"purveyor audit head 1\0", b"purveyor audit cut 1\0"


class ChainKeys(msgspec.Struct, frozen=True):
    """Keys by label; the one named `primary` chains what is new, the others verify what is old."""

    primary: str
    by_label: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"ChainKeys({', '.join(self.by_label)})"

    @property
    def newest(self) -> bytes:
        """The key that chains."""
        return self.by_label[self.primary]


class Link(msgspec.Struct, frozen=True):
    """A record as it is stored. `key` and `chain` are None before the chain."""

    number: int
    at: int  # microseconds since the epoch
    body: bytes
    key: str | None = None
    chain: bytes | None = None


class Head(msgspec.Struct, frozen=True):
    """Where the chain ends; records up to `began` are older than it."""

    number: int
    began: int
    key: str
    chain: bytes
    mac: bytes


class Cut(msgspec.Struct, frozen=True):
    """A checkpoint: the records up to `number` were removed at `at`, `removed` of them now; `chain` is the last one's."""

    number: int
    at: int  # microseconds since the epoch
    removed: int
    key: str
    chain: bytes
    mac: bytes


class Marks(msgspec.Struct, frozen=True):
    """What a verification starts from, as of one moment; `newest` is the greatest number there is."""

    head: Head | None
    cut: Cut | None
    newest: int


class Fault(StrEnum):
    """What is wrong at a place."""

    CHANGED = "CHANGED"
    MISSING = "MISSING"
    INSERTED = "INSERTED"
    UNCHAINED = "UNCHAINED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    HEAD = "HEAD"
    CHECKPOINT = "CHECKPOINT"
    ANCHOR = "ANCHOR"


class Finding(msgspec.Struct, frozen=True):
    """One fault, at the records `number` to `last`."""

    fault: Fault
    number: int
    last: int
    sentence: str


def link(key: bytes, label: str, previous: bytes, number: int, body: bytes) -> bytes:
    """The chain value of a record."""
    name = label.encode()
    content = b"".join((_RECORD, previous, number.to_bytes(8, "big"), len(name).to_bytes(1, "big"), name, body))
    return hmac.digest(key, content, "sha256")


def head(keys: ChainKeys, number: int, began: int, chain: bytes) -> Head:
    """The head of a chain that ends at `number`."""
    return Head(number, began, keys.primary, chain, _mac(keys.newest, _HEAD, (number, began), keys.primary, chain))


def cut(keys: ChainKeys, number: int, at: int, removed: int, chain: bytes) -> Cut:
    """The checkpoint of a cut behind `number`."""
    mac = _mac(keys.newest, _CUT, (number, at, removed), keys.primary, chain)
    return Cut(number, at, removed, keys.primary, chain, mac)


def is_head(keys: ChainKeys, mark: Head) -> bool:
    """Whether the head was made with one of the keys."""
    return _is_made(keys, mark.mac, _HEAD, (mark.number, mark.began), mark.key, mark.chain)


def is_cut(keys: ChainKeys, mark: Cut) -> bool:
    """Whether the checkpoint was."""
    return _is_made(keys, mark.mac, _CUT, (mark.number, mark.at, mark.removed), mark.key, mark.chain)


def _mac(key: bytes, kind: bytes, numbers: tuple[int, ...], label: str, chain: bytes) -> bytes:
    counted = b"".join(number.to_bytes(8, "big") for number in numbers)
    return hmac.digest(key, kind + counted + chain + label.encode(), "sha256")


def _is_made(keys: ChainKeys, mac: bytes, kind: bytes, numbers: tuple[int, ...], label: str, chain: bytes) -> bool:
    key = keys.by_label.get(label)
    return key is not None and hmac.compare_digest(mac, _mac(key, kind, numbers, label, chain))


class Verifier:
    """Judges records in the order of their numbers; `findings` are the first faults, `faults` counts all of them."""

    def __init__(self, keys: ChainKeys, marks: Marks, anchors: Mapping[int, bytes] | None = None) -> None:
        self._keys = keys
        self._anchors = dict(anchors or {})
        self.began = marks.head.began if marks.head is not None else 0
        self.findings: list[Finding] = []
        self.faults = 0
        self.checked = 0
        self.before_chain = 0
        self.number = 0  # the last one seen
        self.chain = START  # its chain value
        self._from_cut(marks)

    def _from_cut(self, marks: Marks) -> None:
        mark = marks.cut
        if mark is None:
            return
        if is_cut(self._keys, mark):
            self.number, self.chain = mark.number, mark.chain
        else:
            self._find(Fault.CHECKPOINT, mark.number, mark.number, "the checkpoint was not made by this broker")

    def moved(self, marks: Marks) -> None:
        """Retention went on meanwhile: go on behind its newest cut, when that is farther than this is."""
        if marks.cut is not None and marks.cut.number > self.number:
            self._from_cut(marks)

    def feed(self, record: Link) -> None:
        """Judge the next record."""
        missing = record.number - self.number - 1
        if missing > 0:
            self._find(Fault.MISSING, self.number + 1, record.number - 1, f"{missing} records are missing")
        self.checked += 1
        if record.chain is None or record.key is None:
            self._unchained(record)
        elif record.key not in self._keys.by_label:
            self._find(Fault.UNKNOWN_KEY, record.number, record.number, f"no key is labelled {record.key[:40]!r}")
        elif not missing:
            self._judge(record, self._keys.by_label[record.key], record.key, record.chain)
        self.number = record.number
        self.chain = record.chain if record.chain is not None else self.chain
        self._meet_anchor(record.number, self.chain)

    def _judge(self, record: Link, key: bytes, label: str, chain: bytes) -> None:
        wanted = link(key, label, self.chain, record.number, record.body)
        if not hmac.compare_digest(wanted, chain):
            text = "it, or the chain value of the record before it, is not what was written"
            self._find(Fault.CHANGED, record.number, record.number, text)
        elif time_of(record.body) != record.at:
            self._find(Fault.CHANGED, record.number, record.number, "its time column is not the record's")

    def _unchained(self, record: Link) -> None:
        if record.number <= self.began:
            self.before_chain += 1
        else:
            self._find(Fault.UNCHAINED, record.number, record.number, "it carries no chain value")

    def _meet_anchor(self, number: int, chain: bytes) -> None:
        anchor = self._anchors.pop(number, None)
        if anchor is not None and not hmac.compare_digest(anchor, chain):
            self._find(Fault.ANCHOR, number, number, "its chain value is not the one of the anchor")

    def end(self, marks: Marks) -> None:
        """Judge the end, when every record up to the head of `marks` was fed."""
        mark = marks.head
        if mark is None:
            if self.checked > self.before_chain:
                self._find(Fault.HEAD, self.number, self.number, "there is no head")
        elif not is_head(self._keys, mark):
            self._find(Fault.HEAD, mark.number, mark.number, "the head was not made by this broker")
        else:
            self._judge_end(mark, marks.newest)
        for number in self._anchors:
            if number > self.number:
                self._find(Fault.ANCHOR, number, number, "the record of the anchor is not there")

    def _judge_end(self, mark: Head, newest: int) -> None:
        if self.number < mark.number:
            text = "the newest records are missing"
            self._find(Fault.MISSING, self.number + 1, mark.number, text)
        elif self.number == mark.number and not hmac.compare_digest(mark.chain, self.chain):
            self._find(Fault.HEAD, mark.number, mark.number, "the newest record is not the one of the head")
        if newest > mark.number:
            self._find(Fault.INSERTED, mark.number + 1, newest, "they stand behind the end of the chain")

    def _find(self, fault: Fault, number: int, last: int, sentence: str) -> None:
        self.faults += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(fault, number, last, sentence))


class _Timed(msgspec.Struct):
    at: datetime


_decode = msgspec.json.Decoder(_Timed).decode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(body: bytes) -> int | None:
    """Microseconds since the epoch, as the record says; None when it is no record."""
    try:
        return (_decode(body).at - _EPOCH) // timedelta(microseconds=1)
    except (msgspec.DecodeError, TypeError):
        return None


__all__ = [
    "MAX_FINDINGS",
    "START",
    "ChainKeys",
    "Cut",
    "Fault",
    "Finding",
    "Head",
    "Link",
    "Marks",
    "Verifier",
    "cut",
    "head",
    "is_cut",
    "is_head",
    "link",
    "time_of",
]
