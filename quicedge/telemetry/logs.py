"""The log of a process: structlog and the standard library's logging in one stream of lines.

Everything goes through `logging`'s root logger into a `LineWriter`, so a slow disk or terminal
never stops the event loop, and text from outside is escaped in one place.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from quicedge.config.limits import LOG_FLUSH_INTERVAL
from quicedge.config.schema import Log
from quicedge.config.unusable import UnusableError
from quicedge.telemetry.access import AccessLog
from quicedge.telemetry.text import escape, escape_json
from quicedge.telemetry.writer import LineWriter

_CHATTY = ("quic", "http3", "asyncio", "h2", "hpack")
"""Library loggers that say at `info` what only a developer wants."""


class Logs:
    """The logs of this process: open, and in use unless `in_use` is false. One is in use at a
    time: logging is global.

    `process` names the process in every line (`supervisor`, `worker 0`); None leaves it out.
    `exchanges` is false where there are none, so that no access log is opened.
    UnusableError when a log file cannot be opened; then what was in use stays so.
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
        """None when the access log is off."""
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
            _route_everything_to(self._handler, config)

    @property
    def dropped(self) -> int:
        """Lines and records lost to a slow or full disk since the start."""
        return self._log.dropped + (self._access.dropped if self._access else 0)

    def reopen(self) -> None:
        """Go on in new files of the same names (SIGUSR1, after a rotation by renaming).

        OSError when one cannot be opened; its old file stays in use.
        """
        self._log.reopen()
        if self._access is not None:
            self._access.reopen()

    def successor(self, config: Log) -> Logs:
        """Logs by another configuration, open and not in use yet; UnusableError as above.

        These themselves when nothing changes. `replace_by` or `discard` takes what this returns.
        """
        if config == self.config:
            return self
        return Logs(config, process=self._process, exchanges=self._exchanges, in_use=False)

    def replace_by(self, successor: Logs) -> Logs:
        """Log to the successor from now on, and return it."""
        if successor is not self:
            _route_everything_to(successor._handler, successor.config)
            self.close()
        return successor

    def discard(self, successor: Logs) -> None:
        """Close a successor that is not used after all."""
        if successor is not self:
            successor.close()

    def close(self) -> None:
        """Write what waits (for `LOG_CLOSE_TIMEOUT` at most) and end."""
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


def _route_everything_to(handler: logging.Handler, config: Log) -> None:
    root = logging.getLogger()
    for other in root.handlers[:]:
        if isinstance(other, _LineHandler):
            root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    for name in _CHATTY:
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
        # A cached logger would keep the first configuration after a reload.
        cache_logger_on_first_use=False,
    )


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]


def _formatter(config: Log, process: str | None) -> logging.Formatter:
    def name_process(_: WrappedLogger, __: str, event_dict: EventDict) -> EventDict:
        if process is not None:
            event_dict["process"] = process
        return event_dict

    render: Processor
    if config.format == "json":
        render = _render_json
    else:
        colors = config.file is None and sys.stderr.isatty()
        console = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )

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
        # Indented: no line of a traceback can pass for a line of the log.
        return "\n".join("    " + escape(line) for line in str(value).split("\n"))
    return escape(value if isinstance(value, str) else str(value))
