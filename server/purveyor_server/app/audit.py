"""Audit records judged without a broker: those of a backup, and exported ones.

Guarantee: nothing is written. The exit code is 0 when every record is what was written, 1 when not; each fault is one line.
Limit: an export has no head, so records missing at its end are found only by an anchor.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from purveyor_server.app.keys import key_source
from purveyor_server.app.refusals import Exit
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.sources import load
from purveyor_server.domain.auditchain import START, ChainKeys, Link, Marks, Verifier, time_of
from purveyor_server.security.keyring import AUDIT, chain_keys, prove
from purveyor_server.security.keytext import KeyFileError
from purveyor_server.security.sealing import Sealer, SealError
from purveyor_server.store.sqlite import saved
from purveyor_server.store.sqlite.errors import StoreOpenError

_LINE = re.compile(
    rb'\{"number":([0-9]{1,18}),"key":"([0-9]*)","previous":"([0-9a-f]{64}|)","chain":"([0-9a-f]{64}|)","record":(.+)\}'
)
_KEY_LINE = re.compile(r"([0-9]{1,9}) ([A-Za-z0-9+/=]{44})")
_TROUBLES = (ConfigError, StoreOpenError, KeyFileError, SealError, OSError)


def verify_backup_command(
    file: Path,
    anchors: Mapping[int, bytes],
    config: Path | None = None,
    dev: bool = False,  # noqa: FBT001, FBT002 - the CLI's options in order
    data_dir: Path | None = None,
) -> int:
    """Verify the records in a backup; prints what is wrong, or that nothing is."""
    try:
        with saved.open_saved(file) as connection:
            keys = _keys_of(saved.identity(connection), config, dev=dev, data_dir=data_dir)
            judge = saved.verified(connection, keys, anchors)
    except _TROUBLES as failure:
        return _refuse(failure)
    return _tell(judge)


def verify_export_command(file: Path, key_file: Path, anchors: Mapping[int, bytes]) -> int:
    """Verify exported lines; prints what is wrong, or that nothing is."""
    try:
        keys = read_keys(key_file.read_text(encoding="ascii"))
        with file.open("rb") as lines:
            judge = judged(links_of(lines), keys, anchors)
    except (*_TROUBLES, ValueError) as failure:
        return _refuse(failure)
    return _tell(judge)


def audit_keys_command(
    file: Path,
    config: Path | None = None,
    dev: bool = False,  # noqa: FBT001, FBT002 - as above
    data_dir: Path | None = None,
) -> int:
    """Print the keys of the records in a backup, a label and a key in base64 per line."""
    try:
        with saved.open_saved(file) as connection:
            keys = _keys_of(saved.identity(connection), config, dev=dev, data_dir=data_dir)
    except _TROUBLES as failure:
        return _refuse(failure)
    for label, key in keys.by_label.items():
        sys.stdout.write(f"{label} {base64.b64encode(key).decode()}\n")
    return Exit.OK


def _keys_of(
    identity: tuple[str, dict[str, bytes]], config: Path | None, *, dev: bool, data_dir: Path | None
) -> ChainKeys:
    """The keys of the records, opened with the broker's own. Raises ConfigError, KeyFileError, SealError."""
    source = key_source(load(config, dev=dev, data_dir=data_dir))
    found, (store_id, values) = source.load(), identity
    prove(source, found, store_id, values)
    return chain_keys(
        store_id, Sealer(found), {name: value for name, value in values.items() if name.startswith(AUDIT)}
    )


def read_keys(text: str) -> ChainKeys:
    """Keys as `audit_keys_command` prints them. Raises ValueError."""
    keys = {}
    for number, line in enumerate(filter(None, text.splitlines()), start=1):
        match = _KEY_LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError(f"line {number}: not a label and a key")
            keys[match[1]] = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            raise ValueError(f"line {number}: the key is not base64") from None
    return ChainKeys(max(keys, key=int, default=""), keys)


def links_of(lines: Iterable[bytes]) -> Iterator[tuple[Link, bytes]]:
    """Records of exported lines with the chain value before each. Raises ValueError that names the line."""
    for place, line in enumerate(lines, start=1):
        match = _LINE.fullmatch(line.rstrip(b"\r\n"))
        if match is None:
            raise ValueError(f"line {place}: not a line of `purveyor audit export`")
        number, key, previous, chain, body = match.groups()
        at = time_of(body)
        link = Link(
            int(number), 0 if at is None else at, body, key.decode() or None, bytes.fromhex(chain.decode()) or None
        )
        yield link, bytes.fromhex(previous.decode()) or START


def judged(records: Iterable[tuple[Link, bytes]], keys: ChainKeys, anchors: Mapping[int, bytes]) -> Verifier:
    """The judge of an export, at its end."""
    judge = Verifier(keys, Marks(None, None, 0), anchors)
    begun = False
    for record, previous in records:
        if not judge.checked:
            judge.number, judge.chain = record.number - 1, previous
        begun = begun or record.chain is not None
        if not begun:
            judge.began = record.number
        judge.feed(record)
    return judge


def _tell(judge: Verifier) -> int:
    for finding in judge.findings:
        place = f"{finding.number}" if finding.number == finding.last else f"{finding.number} to {finding.last}"
        sys.stdout.write(f"{finding.fault} {place}: {finding.sentence}\n")
    before = f", {judge.before_chain} of them older than the chain" if judge.before_chain else ""
    if judge.faults:
        sys.stdout.write(f"{judge.faults} faults in {judge.checked} records\n")
        return Exit.FAILED
    sys.stdout.write(f"{judge.checked} records are what was written{before}\n")
    sys.stderr.write(f"keep elsewhere: --anchor {judge.number}:{judge.chain.hex()}\n")
    return Exit.OK


def _refuse(failure: Exception) -> int:
    code = Exit.CONFIG if isinstance(failure, ConfigError) else Exit.STORE
    sys.stderr.write(f"purveyor: nothing was verified: {getattr(failure, 'message', failure)}\n")
    return code
