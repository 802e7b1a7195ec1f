"""The log of a process: structlog and the standard library's logging in one stream of lines.

Everything passes through the root logger of `logging` into a `LineWriter`, so that a slow disk or
terminal never blocks the event loop and untrusted text is escaped in one place.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from quicedge.config.limits import LOG_FLUSH_INTERVAL
from quicedge.config.schema import Log, LogFormat
from quicedge.config.unusable import UnusableError
from quicedge.telemetry.access import AccessLog
from quicedge.telemetry.text import escape, escape_json
from quicedge.telemetry.writer import LineWriter

_VERBOSE_LOGGERS = ("quic", "http3", "asyncio", "h2", "hpack")
"""Library loggers that are too verbose at `info`."""


class Logs:
    """The logs of this process. Only one instance is in use at a time, because logging is global;
    with `in_use=False` it is opened but not yet used.

    `process` is added to every line (`supervisor`, `worker 0`) unless None.
    `exchanges=False` opens no access log.
    Raises UnusableError when a log file cannot be opened; then nothing has changed.
    """

    def __init__(
        self,
        config: Log,
        *,
        process: str | None = None,
        exchanges: bool = True,
        in_use: bool = True,
    ) -> None:
        self.config = config
        self._process = process
        self._exchanges = exchanges
        self._log = _open("log.file", config.file)
        self._access: LineWriter | None = None
        self.access: AccessLog | None = None
        """None when the access log is disabled."""
        if config.access and exchanges:
            key = "log.access_file" if config.access_file else "log.file"
            try:
                self._access = _open(key, config.access_file or config.file, LOG_FLUSH_INTERVAL)
            except UnusableError:
                self._log.close()
                raise
            self.access = AccessLog(self._access, config.format, fields=config.access_fields)
        self._handler = _LineHandler(self._log)
        self._handler.setFormatter(_formatter(config, process))
        if in_use:
            _install(self._handler, config)

    @property
    def dropped(self) -> int:
        """Lines dropped since the start because of a slow or full disk."""
        return self._log.dropped + (self._access.dropped if self._access else 0)

    def reopen(self) -> None:
        """Reopen the log files by name (SIGUSR1, after a rotation by renaming).

        Raises OSError when one cannot be opened; its old file then stays in use.
        """
        self._log.reopen()
        if self._access is not None:
            self._access.reopen()

    def successor(self, config: Log) -> Logs:
        """Open logs for another configuration without using them yet; raises UnusableError.

        Returns self when nothing changes. The result must be passed to `replace_by` or `discard`.
        """
        if config == self.config:
            return self
        return Logs(config, process=self._process, exchanges=self._exchanges, in_use=False)

    def replace_by(self, successor: Logs) -> Logs:
        """Switch logging to the successor and return it."""
        if successor is not self:
            _install(successor._handler, successor.config)
            self.close()
        return successor

    def discard(self, successor: Logs) -> None:
        """Close a successor that was not used."""
        if successor is not self:
            successor.close()

    def close(self) -> None:
        """Write pending lines, for `LOG_CLOSE_TIMEOUT` at most, and close."""
        logging.getLogger().removeHandler(self._handler)
        self._log.close()
        if self._access is not None:
            self._access.close()


def _open(key: str, path: str | None, flush_interval: float = 0.0) -> LineWriter:
    try:
        return LineWriter(path, flush_interval=flush_interval)
    except OSError as error:
        raise UnusableError(key, error) from error


class _LineHandler(logging.Handler):
    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        self._writer.write(line + b"\n")


def _install(handler: logging.Handler, config: Log) -> None:
    root = logging.getLogger()
    for other in root.handlers[:]:
        if isinstance(other, _LineHandler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).setLevel(
            logging.DEBUG if config.level == "debug" else logging.WARNING
        )
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        # Cached loggers would ignore reconfiguration.
        cache_logger_on_first_use=False,
    )


def prepare_rendering() -> None:
    """Make what renders lines on a terminal or in its place, once for all processes."""
    _console(sys.stderr.isatty())
    _shared()


@functools.cache
def _console(colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


@functools.cache
def _shared() -> tuple[Processor, ...]:
    return (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    )


def _formatter(config: Log, process: str | None) -> logging.Formatter:
    def name_process(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
        if process is not None:
            event_dict["process"] = process
        return event_dict

    render: Processor
    if config.format is LogFormat.JSON:
        render = _render_json
    else:
        console = _console(config.file is None and sys.stderr.isatty())

        def render(logger: WrappedLogger, name: str, event_dict: EventDict) -> str:
            return str(console(logger, name, _escape_values(event_dict)))

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
        processors=[
            name_process,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            render,
        ],
    )


def _render_json(_: WrappedLogger, __: str, event_dict: EventDict) -> str:
    head = {key: event_dict.pop(key) for key in ("timestamp", "level") if key in event_dict}
    return escape_json(json.dumps({**head, **event_dict}, default=str).encode("ascii")).decode()


def _escape_values(event_dict: EventDict) -> EventDict:
    return {key: _escaped(key, value) for key, value in event_dict.items()}


def _escaped(key: str, value: Any) -> Any:
    if isinstance(value, int | float | bool | None):
        return value
    if key == "exception":
        # Indented, so that no line of a traceback can be mistaken for a log line.
        return "\n".join("    " + escape(line) for line in str(value).split("\n"))
    return escape(value if isinstance(value, str) else str(value))
