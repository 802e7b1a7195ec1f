"""Which connections of a worker are traced: a sample, those of listed clients or names, any one
that an operator asks for."""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable

from quicedge.config.schema import Qlog
from quicedge.http.h3 import H3Connection
from quicedge.http.traced import trace_codec, untrace_codec
from quicedge.quic.connection import Connection
from quicedge.quic.logged import endpoint_of
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace
from quicedge.telemetry.tracefiles import TraceFiles, trace_directory
from quicedge.worker.session import Session


class Tracer:
    """Starts and stops the traces of one worker. `clock` is the connections' clock."""

    def __init__(self, config: Qlog, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._files: TraceFiles | None = None
        self._directory: str | None = None
        self.refused = 0
        """Connections that were not traced because too many were."""
        self.configure(config)

    def configure(self, config: Qlog) -> None:
        """Use this from now on; traces that run go on as they are."""
        self._config = config
        self._networks = [ipaddress.ip_network(text) for text in config.addresses]
        self._names = {name.lower() for name in config.server_names}
        # QLOGDIR alone asks for everything, as interop runners do.
        by_variable = config.directory is None and not (self._networks or self._names)
        self._rate = 1.0 if by_variable and config.rate == 0 else config.rate
        directory = trace_directory(config)
        if directory != self._directory:
            if self._files is not None:
                self._files.close()
            self._directory = directory
            self._files = None
            if directory is not None:
                self._files = TraceFiles(directory, max_total=config.max_total_size)

    @property
    def dropped(self) -> int:
        """Writes of events that a slow or full disk lost."""
        return self._files.dropped + self._files.failed if self._files is not None else 0

    @property
    def running(self) -> int:
        """Traces that are being written."""
        return self._files.open if self._files is not None else 0

    def accepted(self, session: Session) -> None:
        """A connection is new: trace it, or trace it until its server name decides."""
        if self._files is None:
            return
        connection = session.connection
        wanted = self._rate > 0 and random.random() < self._rate
        if not wanted and self._networks:
            host = str(connection.came_from.remote[0]).partition("%")[0]
            address = ipaddress.ip_address(host)
            address = getattr(address, "ipv4_mapped", None) or address
            wanted = any(address in network for network in self._networks)
        if wanted or self._names:
            # The time of its first datagram: an event must not happen before its trace.
            self._start(connection, connection.created_at, tentative=not wanted)

    def negotiated(self, session: Session) -> None:
        """The client's server name is known, and HTTP/3 is about to begin."""
        connection, trace = session.connection, session.connection.trace
        if trace is None:
            return
        if trace.tentative:
            if (connection.server_name or "").lower() not in self._names:
                connection.stop_trace()
                return
            trace.keep()
        if isinstance(session.h3, H3Connection):
            trace_codec(session.h3, trace)

    def start(self, session: Session) -> str | None:
        """Trace a connection that lives; its file's name, or None when that cannot be."""
        connection = session.connection
        trace = connection.trace
        if trace is not None and not trace.closed:
            if trace.tentative:
                trace.keep()
            return trace.file
        if not self._start(connection, self._clock(), tentative=False):
            return None
        assert connection.trace is not None
        codec = getattr(session, "h3", None)
        if isinstance(codec, H3Connection):
            trace_codec(codec, connection.trace)
        return connection.trace.file

    def stop(self, session: Session) -> str | None:
        """End a connection's trace; its file's name, or None when there was none."""
        trace = session.connection.trace
        if trace is None:
            return None
        codec = getattr(session, "h3", None)
        if isinstance(codec, H3Connection):
            untrace_codec(codec)
        session.connection.stop_trace()
        return trace.file

    def _start(self, connection: Connection, started: float, *, tentative: bool) -> bool:
        if self._files is None:
            return False
        wall = time.time() - (self._clock() - started)
        file = self._files.new(f"{int(wall * 1000)}-{connection.id}")
        if file is None:
            self.refused += 1
            return False
        trace = Trace(
            file,
            level=self._config.level,
            group_id=connection.id,
            started=started,
            wall_clock=wall,
            tentative=tentative,
            max_size=self._config.max_file_size,
        )
        path = connection.active_path or connection.came_from
        trace.log(
            events.ConnectionStarted(
                local={"connection_ids": [cid.hex() for cid in connection.host_cids]},
                remote=endpoint_of(path),
            )
        )
        connection.start_trace(trace)
        return True

    def close(self) -> None:
        """Write what waits."""
        if self._files is not None:
            self._files.close()
