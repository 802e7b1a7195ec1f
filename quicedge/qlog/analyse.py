"""A single pass over a trace that collects the data for statistics, report and comparison.

Memory use does not grow with the trace: graphs are downsampled, tables are limited, and omitted
items are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quicedge.config.tracelimits import QLOG_MAX_CONNECTIONS
from quicedge.qlog.connection import Connection
from quicedge.qlog.normalise import Events
from quicedge.qlog.parse_errors import ParseErrors


class Analysis:
    """The connections of a file, and the problems met while reading it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[Connection] = []
        self.parse_errors = ParseErrors()
        self.shape = "unknown"
        self.events = 0
        self.bad_events = 0
        """JSON values that are not events."""
        self.beyond_limit = 0
        """Events of connections beyond the limit on connections."""
        self.trace_errors: list[str] = []
        """Errors that the file itself declares for traces it could not include."""

    @property
    def main(self) -> Connection | None:
        """The connection with the most events, usually the one of interest."""
        return max(self.connections, key=lambda connection: connection.events, default=None)


def analyse(
    path: str | Path,
    progress: Callable[[int], None] | None = None,
    detail_from: float = 0.0,
) -> Analysis:
    """Read a whole trace file. Packets are kept individually from `detail_from` (ms) on.

    Raises OSError if the file cannot be opened, and nothing else.
    """
    analysis = Analysis(Path(path))
    events = Events(path, progress)
    found: dict[tuple[int, str], Connection] = {}
    for trace, event in events:
        analysis.events += 1
        key = (trace.header.index, event.group)
        connection = found.get(key)
        if connection is None:
            if len(found) >= QLOG_MAX_CONNECTIONS:
                analysis.beyond_limit += 1
                continue
            connection = found[key] = Connection(trace, event.group, detail_from)
        connection.add(event)
    analysis.connections = list(found.values())
    analysis.parse_errors = events.parse_errors
    analysis.bad_events = events.bad_events
    analysis.shape = events.reader.shape
    analysis.trace_errors = [
        str(header.trace["error_description"])
        for header in events.reader.headers
        if "error_description" in header.trace
    ]
    return analysis
