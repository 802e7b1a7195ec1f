"""Limits of spans and traces: as `limits` has those of everything else."""

from __future__ import annotations

from typing import Final

# --- spans (OpenTelemetry) --------------------------------------------------------------------

OTEL_QUEUE: Final = 2048
"""Spans waiting to be exported, as OTEL_BSP_MAX_QUEUE_SIZE has it; further ones are dropped."""

OTEL_BATCH: Final = 512
"""Spans of one export, as OTEL_BSP_MAX_EXPORT_BATCH_SIZE has it."""

OTEL_INTERVAL: Final = 5.0
"""Seconds between two exports, as OTEL_BSP_SCHEDULE_DELAY has it."""

OTEL_CLOSE_TIMEOUT: Final = 3.0
"""Seconds the process waits at its end for a collector to take the last spans."""

OTEL_WORKER_BATCH: Final = 64
"""Spans a worker gathers before it hands them to its supervisor."""

OTEL_WORKER_INTERVAL: Final = 0.5
"""Seconds a span waits in a worker for company."""

OTEL_WORKER_BACKLOG: Final = 1024 * 1024
"""Bytes that a supervisor has not read yet above which a worker drops spans."""

OTEL_MAX_TEXT: Final = 2048
"""Characters of an attribute; clients choose paths and user agents, longer ones are cut."""

# --- qlog (writing) ---------------------------------------------------------------------------

QLOG_BUFFER: Final = 16 * 1024 * 1024
"""Bytes of events waiting for a slow disk, all traces of a worker; further events are dropped."""

QLOG_FLUSH_INTERVAL: Final = 0.05
"""Seconds between two writes of the traces: what a killed process can lose."""

QLOG_MAX_OPEN: Final = 200
"""Traces of a worker at once, each holds a descriptor; further connections are not traced."""

QLOG_MAX_FILE_SIZE: Final = 64 * 1024 * 1024
"""Bytes of one trace file, some 300 000 packets; the trace ends there."""

QLOG_MAX_TOTAL_SIZE: Final = 1024 * 1024 * 1024
"""Bytes of all trace files in the directory; the oldest go."""

QLOG_PRUNE_EVERY: Final = 16 * 1024 * 1024
"""Bytes written between two looks at the size of the directory."""

QLOG_MAX_HELD: Final = 64 * 1024
"""Bytes of a trace kept until the server name decides whether it is written."""

QLOG_FOLLOW_BUFFER: Final = 1024 * 1024
"""Bytes of events waiting for somebody who follows a live connection; further ones are lost."""

QLOG_FOLLOW_PAUSE: Final = 0.1
"""Seconds between two looks for events of a connection that somebody follows."""

QLOG_FOLLOW_TIMEOUT: Final = 5.0
"""Seconds without a look after which nobody follows any more."""

QLOG_MAX_FOLLOWERS: Final = 32
"""Followers of a worker: those of ADMIN_MAX_EVENT_STREAMS, and some that just left."""

# --- what limits a transfer -------------------------------------------------------------------

LIMITS_MAX_STREAMS: Final = 1024
"""Streams of a connection whose receive credit is watched; a client may open far fewer."""

LIMITS_MAX_RAISES: Final = 64
"""Raises of one credit limit remembered until they have taken effect, a round trip later; we send
at most some two per round trip and window."""

# --- qlog (reading) ---------------------------------------------------------------------------

QLOG_READ_SIZE: Final = 256 * 1024
"""Bytes read from a trace at once."""

QLOG_MAX_EVENT: Final = 8 * 1024 * 1024
"""Bytes of one event or file header; a longer one is reported as broken and skipped."""

QLOG_MAX_PARSE_ERRORS: Final = 50
"""Broken places of a trace file that are described; further ones are only counted."""

QLOG_MAX_CONNECTIONS: Final = 64
"""Connections (traces or groups of events) of one file that are analysed."""

QLOG_SERIES_POINTS: Final = 1200
"""Points of a graph over time: more than a screen is wide; time is folded to stay below."""

QLOG_MAX_STREAMS: Final = 4000
"""Streams of a connection that get a row of their own; the rest are added up in one."""

QLOG_MAX_OUTSTANDING: Final = 65536
"""Packets sent and not settled that are remembered: beyond any real congestion window."""

QLOG_MAX_LOST: Final = 512
"""Lost packets remembered, so that a late acknowledgement shows the loss was spurious; each ACK
is compared with all of them."""

QLOG_MAX_DETAIL: Final = 3000
"""Packets kept one by one for the packet sequence diagram, from the start asked for."""

QLOG_MAX_RUNS: Final = 6000
"""Bars of the multiplexing view; neighbours are merged to stay below."""

QLOG_MAX_FINDINGS: Final = 2000
"""Distinct findings of `qlog validate`; further ones are only counted."""

QLOG_MAX_NUMBER_RANGES: Final = 4096
"""Ranges of packet numbers of a space that `qlog validate` remembers; each loss makes one more."""

QLOG_MAX_GAPS: Final = 4096
"""Packet numbers missing that are remembered one by one, until they come or are explained."""

QLOG_MAX_LAST_PACKETS: Final = 4096
"""Packets at the end of a trace of which the time is kept, to tell those after the other's end."""
