"""Logs: one JSON object or one readable line per event, to standard error.

Guarantee: every field passes `redact.shown`; request_id, operation_id and tenant that were bound to the context stand in
every line written below; a call under the level does nothing. A log line never raises into the code that wrote it.
Limit: standard error is written to as it comes; a reader that stops reading stops the writer.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from purveyor_server.telemetry.redact import masked, shown

Format = Literal["json", "console"]
Level = Literal["debug", "info", "warning", "error"]
_LEVELS: dict[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_OWN = ("event", "level", "logger", "timestamp")
_METHODS = ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log")
_encoder = msgspec.json.Encoder()


class _Filtering(structlog.make_filtering_bound_logger(logging.INFO)):  # type: ignore[misc] # a class made at run time
    """The bound logger of this process. Its methods are exchanged when the level changes: what is under the level stays
    one call that does nothing, and loggers that were made before follow."""

    level: Level = "info"


def configure(
    form: Format = "json", level: Level = "info", stream: TextIO | None = None, *, cache: bool = True
) -> None:
    """Set up the logs of this process; `cache` off lets a test configure again."""
    target = stream or sys.stderr
    set_level(level)
    structlog.configure(
        processors=_processors(form, target),
        wrapper_class=_Filtering,
        logger_factory=lambda *names: _Writer(names[0] if names else "", target),
        cache_logger_on_first_use=cache,
    )
    logging.getLogger().handlers = [_Libraries()]


def set_level(level: Level) -> Level:
    """Log this level and above from now on, in loggers that exist as well; returns the level before."""
    before: Level = _Filtering.level
    source = structlog.make_filtering_bound_logger(_LEVELS[level])
    for name in _METHODS:
        setattr(_Filtering, name, getattr(source, name))
    _Filtering.level = level
    logging.getLogger().setLevel(max(_LEVELS[level], logging.WARNING))
    return before


def current_level() -> Level:
    """The level that is logged now."""
    return _Filtering.level


def redaction(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Processor: every field as it may be shown."""
    return {key: value if key in _OWN else shown(key, value) for key, value in event.items()}


def _processors(form: Format, target: TextIO) -> Sequence[Processor]:
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _named,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Without local variables: they hold what must not be shown.
        structlog.processors.format_exc_info,
        redaction,
    ]
    if form == "json":
        return [*common, _json]
    colours = target.isatty()
    return [*common, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]


def _named(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if name := getattr(logger, "name", ""):
        event["logger"] = name
    return event


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encoder.encode(event).decode()


class _Writer:
    """Writes finished lines; one per logger name."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # Nobody reads any more; the work that was logged goes on.
            return

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = msg


class _Libraries(logging.Handler):
    """Carries what libraries log through the standard module into the same lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        try:
            text: Any = record.getMessage()
        except (TypeError, ValueError):
            text = record.msg
        write = log.error if record.levelno >= logging.ERROR else log.warning
        write("library message", message=masked(str(text)), exc_info=record.exc_info)
