"""Limits of spans and qlog traces; all others are in `limits`."""

from __future__ import annotations

from typing import Final

# --- spans (OpenTelemetry) --------------------------------------------------------------------

OTEL_QUEUE: Final = 2048
"""Spans waiting for export (default of OTEL_BSP_MAX_QUEUE_SIZE); further ones are dropped."""

OTEL_BATCH: Final = 512
"""Spans per export (default of OTEL_BSP_MAX_EXPORT_BATCH_SIZE)."""

OTEL_INTERVAL: Final = 5.0
"""Seconds between exports (default of OTEL_BSP_SCHEDULE_DELAY)."""

OTEL_CLOSE_TIMEOUT: Final = 3.0
"""Seconds that the process waits at exit for the collector to accept the last spans."""

OTEL_WORKER_BATCH: Final = 64
"""Spans that a worker collects before it sends them to the supervisor."""

OTEL_WORKER_INTERVAL: Final = 0.5
"""Seconds that a span waits in a worker for the batch to fill."""

OTEL_WORKER_BACKLOG: Final = 1024 * 1024
"""Bytes not yet read by the supervisor above which a worker drops spans."""

OTEL_MAX_TEXT: Final = 2048
"""Characters of an attribute; longer ones are truncated: clients choose paths and user agents."""

# --- qlog (writing) ---------------------------------------------------------------------------

QLOG_BUFFER: Final = 16 * 1024 * 1024
"""Bytes of events waiting for the disk, over all traces of a worker; further ones are dropped."""

QLOG_FLUSH_INTERVAL: Final = 0.05
"""Seconds between writes of the traces: what a killed process can lose."""

QLOG_MAX_OPEN: Final = 200
"""Concurrent traces per worker, each with a descriptor; further connections are not traced."""

QLOG_MAX_FILE_SIZE: Final = 64 * 1024 * 1024
"""Bytes per trace file, about 300 000 packets; the trace ends there."""

QLOG_MAX_TOTAL_SIZE: Final = 1024 * 1024 * 1024
"""Bytes of all trace files in the directory; the oldest are removed."""

QLOG_PRUNE_EVERY: Final = 16 * 1024 * 1024
"""Bytes written between checks of the directory's size."""

QLOG_MAX_HELD: Final = 64 * 1024
"""Bytes of a trace buffered until the server name decides whether it is written."""

QLOG_FOLLOW_BUFFER: Final = 1024 * 1024
"""Bytes of events buffered for a follower of a live connection; further ones are dropped."""

QLOG_FOLLOW_PAUSE: Final = 0.1
"""Seconds between polls for the events of a followed connection."""

QLOG_FOLLOW_TIMEOUT: Final = 5.0
"""Seconds without a poll after which a follower is removed."""

QLOG_MAX_FOLLOWERS: Final = 32
"""Followers per worker: ADMIN_MAX_EVENT_STREAMS, and some that just left."""

# --- what limits a transfer -------------------------------------------------------------------

LIMITS_MAX_STREAMS: Final = 1024
"""Streams per connection whose receive credit is tracked; a client may open far fewer."""

LIMITS_MAX_RAISES: Final = 64
"""Raises of one credit limit remembered until they take effect, a round trip later; about two are
sent per round trip and window."""

# --- qlog (reading) ---------------------------------------------------------------------------

QLOG_READ_SIZE: Final = 256 * 1024
"""Bytes per read of a trace."""

QLOG_MAX_EVENT: Final = 8 * 1024 * 1024
"""Bytes of one event or file header; a longer one is reported as broken and skipped."""

QLOG_MAX_PARSE_ERRORS: Final = 50
"""Parse errors of a trace file that are described; further ones are only counted."""

QLOG_MAX_CONNECTIONS: Final = 64
"""Connections (traces or groups of events) of one file that are analysed."""

QLOG_SERIES_POINTS: Final = 1200
"""Points of a time series: more than a screen is wide; intervals are merged to stay below."""

QLOG_MAX_STREAMS: Final = 4000
"""Streams per connection with a row of their own; the rest are summed up in one."""

QLOG_MAX_OUTSTANDING: Final = 65536
"""Packets in flight that are remembered: beyond any real congestion window."""

QLOG_MAX_LOST: Final = 512
"""Lost packets remembered, so that a late acknowledgement shows the loss was spurious; each ACK
is compared with all of them."""

QLOG_MAX_DETAIL: Final = 3000
"""Packets kept individually for the packet sequence diagram, from the requested start on."""

QLOG_MAX_RUNS: Final = 6000
"""Bars of the multiplexing view; neighbours are merged to stay below."""

QLOG_MAX_FINDINGS: Final = 2000
"""Distinct findings of `qlog validate`; further ones are only counted."""

QLOG_MAX_NUMBER_RANGES: Final = 4096
"""Packet number ranges per space that `qlog validate` remembers; each loss adds one."""

QLOG_MAX_GAPS: Final = 4096
"""Missing packet numbers remembered individually until they arrive or are explained."""

QLOG_MAX_LAST_PACKETS: Final = 4096
"""Packets at the end of a trace whose times are kept, to find those after the peer's end."""
