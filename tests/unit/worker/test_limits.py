"""Rates, memory and progress: the operator's limits without a socket."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from quicedge.config.limits import (
    MEMORY_TRIM_INTERVAL,
)
from quicedge.config.rates import parse_rate
from quicedge.config.schema import Limits, RequestRate
from quicedge.downstream.stream_timeouts import StreamTimeouts
from quicedge.http.message import Request
from quicedge.proxy.request_rates import RequestRates
from quicedge.worker.memory import MemoryBudget, clean_mappings, default_budget, resident_bytes

ONE, NEIGHBOUR, FAR = "192.0.2.1", "192.0.2.200", "198.51.100.9"


def request(**fields: str) -> Request:
    pairs = [(name.encode(), value.encode()) for name, value in fields.items()]
    return Request(b"GET", b"https", b"a", b"/", pairs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("100/second", (100, 1.0)), ("5 per 10 minutes", (5, 600.0)), ("1/day", (1, 86400.0))],
)
def test_rates_are_read(text: str, expected: tuple[int, float]) -> None:
    assert parse_rate(text) == expected


@pytest.mark.parametrize("text", ["", "ten/second", "0/second", "5/fortnight", "5", "-1/second"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="100/second"):
        parse_rate(text)


def test_requests_are_counted_by_address() -> None:
    rates = RequestRates([RequestRate(rate="2/minute")])
    answers = [not rates.wait(request(), ONE, 0.0) for _ in range(3)]
    assert answers == [True, True, False]
    assert not rates.wait(request(), NEIGHBOUR, 0.0)
    assert not rates.wait(request(), ONE, 30.0), "half a minute gives one of two back"


def test_requests_are_counted_by_network() -> None:
    rates = RequestRates([RequestRate(rate="1/second", by="prefix")])
    assert not rates.wait(request(), ONE, 0.0)
    assert rates.wait(request(), NEIGHBOUR, 0.0)
    assert not rates.wait(request(), FAR, 0.0)


def test_requests_are_counted_by_a_field() -> None:
    rates = RequestRates([RequestRate(rate="1/second", by="header:X-Key")])
    keyed = request(**{"x-key": "a"})
    assert not rates.wait(keyed, ONE, 0.0)
    assert rates.wait(keyed, FAR, 0.0)
    assert not rates.wait(request(**{"x-key": "b"}), ONE, 0.0)
    assert not rates.wait(request(), ONE, 0.0), "requests without the field are not counted"


def test_memory_over_budget_refuses_then_sheds_then_recovers() -> None:
    used = 900
    budget = MemoryBudget(1000, measure=lambda: used, trim=lambda: None)
    assert budget.check(100, 0.0) == 0
    assert not budget.full
    used = 1050
    assert budget.check(100, 1.0) == 0
    assert budget.full
    used = 1200
    assert budget.check(100, 2.0) == 5
    assert budget.check(3, 3.0) == 1
    used = 950
    budget.check(100, 4.0)
    assert budget.full, "not until it is a tenth below"
    used = 800
    budget.check(100, 5.0)
    assert not budget.full


def test_freed_memory_goes_back_to_the_system_before_anything_is_refused() -> None:
    used = 1200

    def trim() -> None:
        nonlocal used
        used = 300

    budget = MemoryBudget(1000, measure=lambda: used, trim=trim)
    assert budget.check(100, 0.0) == 0
    assert not budget.full


def test_a_full_worker_recovers_by_giving_back_what_was_freed() -> None:
    used, freed = 1050, 0

    def trim() -> None:
        nonlocal used
        used -= freed

    budget = MemoryBudget(1000, measure=lambda: used, trim=trim)
    budget.check(100, 0.0)
    assert budget.full
    freed = 700
    budget.check(100, 1.0)
    assert budget.full, "trimmed a moment ago"
    budget.check(100, MEMORY_TRIM_INTERVAL)
    assert not budget.full


BURST = """
from quicedge.worker.memory import resident_bytes, trim
before = resident_bytes()
burst = [bytes(1000) for _ in range(200_000)]
kept = burst[::20_000]
grown = resident_bytes() - before
del burst
trim()
assert grown > 150_000_000, grown
assert resident_bytes() - before < grown / 4, resident_bytes() - before
"""


def test_a_burst_that_is_over_leaves_little_resident() -> None:
    """What glibc keeps between two living allocations comes back when asked for."""
    # In a process of its own: this one's heap has its past.
    done = subprocess.run([sys.executable, "-c", BURST], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


SMAPS = b"""\
00400000-00500000 r--p 00000000 fe:00 11 /usr/bin/program with spaces
Rss: 900 kB
Anonymous: 0 kB
00500000-00900000 r-xp 00100000 fe:00 11 /usr/bin/program with spaces
Anonymous: 0 kB
00900000-00910000 r--p 00500000 fe:00 11 /usr/bin/program with spaces
Anonymous: 64 kB
00910000-00920000 rw-p 00510000 fe:00 11 /usr/bin/program with spaces
Anonymous: 0 kB
00920000-00930000 r--s 00000000 fe:00 12 /tmp/shared
Anonymous: 0 kB
00930000-00940000 r--p 00000000 00:00 0
Anonymous: 0 kB
7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]
Anonymous: 0 kB
"""


def test_pages_are_given_back_that_hold_nothing_but_their_file() -> None:
    """Not relocated addresses, which look read-only, nor memory without a file."""
    assert [*clean_mappings(SMAPS.splitlines())] == [(0x400000, 0x500000), (0x500000, 0x900000)]


START = """
from quicedge.worker.memory import release_files, resident_bytes
import quicedge.worker.rehearsal as rehearsal
rehearsal.rehearse()
before = resident_bytes()
release_files()
given_back = before - resident_bytes()
assert given_back > 3_000_000, given_back
rehearsal.rehearse()
"""


def test_pages_of_libraries_that_the_start_used_are_given_back_and_return_when_needed() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


REUSE = """
import resource, sys
from quicedge.worker.memory import tune_allocator
if "tuned" in sys.argv:
    assert tune_allocator()
buffers = [bytes(100_000) for _ in range(40)]
del buffers
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    buffers = [bytes(100_000) for _ in range(40)]
    del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*arguments: str) -> int:
    """Of a hundred bursts of 4 MB in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", REUSE, *arguments], capture_output=True, check=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_buffers_of_transfers_are_reused_without_page_faults() -> None:
    assert page_faults("tuned") < 2000
    assert page_faults() > 20_000, "glibc's own settings give the memory back each time"


def test_a_worker_may_take_its_part_of_the_machine() -> None:
    assert default_budget(1) == pytest.approx(4 * default_budget(4), rel=0.01)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < default_budget(1) <= total


def test_the_memory_of_this_process_is_plausible() -> None:
    assert 10_000_000 < resident_bytes() < 10_000_000_000


# --- progress -----------------------------------------------------------------------------------


@dataclass
class FakeConnection:
    unsent: int = 0
    in_flight: int = 0
    acknowledged: int = 0

    def unsent_bytes(self, stream_id: int) -> int:
        return self.unsent

    def acknowledged_bytes(self, stream_id: int) -> int:
        return self.acknowledged

    def unacknowledged_bytes(self, stream_id: int) -> int:
        return self.unsent + self.in_flight


@dataclass
class FakeExchange:
    bytes_received: int = 0
    request_over: bool = False
    request_paused: bool = False
    response_started: bool = False
    response_over: bool = False
    may_pause: bool = False
    tunnel: object = None
    is_tunnel: bool = False
    ended: list[Any] = field(default_factory=list)

    def check_held_head(self, now: float) -> None:
        """It waits for nothing."""

    def refuse(self, status: int, outcome: str) -> None:
        self.ended.append(status)

    def response_timed_out(self) -> None:
        self.ended.append("response")


class FakeSession:
    def __init__(self) -> None:
        self.connection = self.progress = FakeConnection()
        self.exchange = FakeExchange()
        self.session = self
        self.stream_id = 0
        self.streams: dict[int, Any] = {0: self}
        self.heads: list[int] = []
        self.refused: list[tuple[int, int]] = []
        self.resets: list[int] = []

    def unfinished_heads(self) -> list[int]:
        return self.heads

    def refuse_head(self, stream_id: int, status: int, reason: str) -> None:
        self.refused.append((stream_id, status))

    def reset(self, stream_id: int, code: int) -> None:
        self.resets.append(stream_id)


LIMITS = Limits(header_timeout=5.0, body_timeout=10.0, response_timeout=20.0)


def run(session: FakeSession, seconds: int, each: Any = lambda second: None) -> int:
    progress, late = StreamTimeouts(), 0
    for second in range(seconds):
        each(second)
        late += progress.check(session, LIMITS, float(second))  # type: ignore[arg-type]
    return late


def test_a_head_that_never_ends_is_answered_408() -> None:
    session = FakeSession()
    session.exchange.request_over = True
    session.heads = [4]
    progress = StreamTimeouts()
    for second in range(7):
        progress.check(session, LIMITS, float(second))  # type: ignore[arg-type]
    assert session.refused == [(4, 408)]


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    session = FakeSession()
    session.exchange.request_over = True
    session.connection.unsent = 100_000
    assert run(session, 25) >= 1
    assert session.resets[0] == 0
    assert session.exchange.ended[0] == "response"


def test_a_reader_is_not_late_when_there_is_nothing_to_take() -> None:
    session = FakeSession()
    session.exchange.request_over = True
    assert run(session, 100) == 0


def test_what_is_in_flight_of_an_open_response_is_nobodys_delay() -> None:
    session = FakeSession()
    session.exchange.request_over = True
    session.connection.in_flight = 10
    assert run(session, 100) == 0


@pytest.mark.parametrize(("unsent", "in_flight"), [(100_000, 0), (0, 10)])
def test_a_complete_response_is_owed_an_ack_of_its_last_byte(unsent: int, in_flight: int) -> None:
    session = FakeSession()
    session.exchange.request_over = session.exchange.response_over = True
    session.connection.unsent, session.connection.in_flight = unsent, in_flight
    assert run(session, 25) >= 1
    assert session.resets[0] == 0
    assert session.exchange.ended[0] == "response"


def test_a_tunnel_has_no_deadline_on_progress() -> None:
    """Neither while it waits for its origin, nor open, with a reader that takes nothing."""
    session = FakeSession()
    session.exchange.tunnel = object()
    assert run(session, 100) == 0
    session.exchange.is_tunnel = session.exchange.response_started = True
    session.connection.unsent = 100_000
    assert run(session, 1000) == 0
