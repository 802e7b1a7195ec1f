"""What limits a transfer, on whole connections whose limit is known: live, and in a trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quicedge.qlog.analyse import analyse
from quicedge.qlog.blocked_time import Limit
from quicedge.qlog.connection import Connection as TraceOf
from quicedge.qlog.summary import summary
from quicedge.qlog.verdict import headline
from quicedge.quic.blocked_time import main_limit
from quicedge.telemetry.trace import Trace
from tests.support.qlogtraces import sequential
from tests.support.quicpair import make_pair
from tests.support.simnet import Link, Pair

WINDOWS = {"max_data": 1 << 30, "max_stream_data": 1 << 30}
LEVELS = ("core", "extra")
"""What a trace at `extra` says itself, one at `core` leaves to be inferred."""


class File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.why_lost = ""
        self._file = path.open("wb")

    def write(self, lines: bytes) -> bool:
        self._file.write(lines)
        return True

    def close(self) -> None:
        self._file.close()


class Run:
    """A connection that is traced at two levels; `take` ends it and gives what limited it."""

    def __init__(self, directory: Path, *, delay: float = 0.02, rate: float | None = None,
                 queue: int = 60_000, client: dict[str, Any] | None = None,
                 server: dict[str, Any] | None = None) -> None:  # fmt: skip
        link = {"delay": delay, "rate": rate, "queue": queue}
        self.pair: Pair = make_pair(
            Link(**link), Link(**link),  # type: ignore[arg-type]
            client_options={**WINDOWS, **(client or {})},
            server_options={**WINDOWS, **(server or {})},
        )  # fmt: skip
        self.server = self.pair.server.connection
        self.client = self.pair.client.connection
        self.paths = {level: directory / f"{level}.sqlog" for level in LEVELS}
        self.at_client = 0
        self.at_server = 0
        self.consumes = True
        self.pair.client.on_event = self._count_client
        self.pair.server.on_event = self._count_server

    def _count_client(self, event: Any) -> None:
        self.at_client += len(getattr(event, "data", b""))

    def _count_server(self, event: Any) -> None:
        data = getattr(event, "data", b"")
        self.at_server += len(data)
        if data and self.consumes:
            self.server.consume(event.stream_id, len(data))

    def trace(self) -> None:
        """Trace from now on."""
        core, extra = (File(self.paths[level]) for level in LEVELS)
        trace = Trace(extra, level="extra", group_id="aa", started=1000.0, wall_clock=1.7e9)
        trace.now = self.pair.now
        self.server.start_trace(trace)
        trace.attach(core, level="core", opening=self.server.trace_opening)

    def shake_hands(self) -> None:
        self.pair.transmit()
        self.pair.run(lambda: self.server.handshake_confirmed and self.client._handshake_confirmed)

    def ask(self) -> None:
        self.client.send_stream_data(0, b"?", end_stream=True)
        self.pair.run(lambda: self.at_server == 1)

    def wait(self, seconds: float) -> None:
        end = self.pair.now + seconds
        while self.pair.step(end):
            pass
        self.pair.now = end
        self.pair.transmit()

    def live(self, *, received: bool = False) -> dict[Limit, float]:
        limits = self.server.limits
        return limits.received(self.pair.now) if received else limits.sent(self.pair.now)

    def read(self, level: str) -> TraceOf:
        self.server.stop_trace()
        connection = analyse(self.paths[level]).main
        assert connection is not None
        return connection


def since(before: dict[Limit, float], after: dict[Limit, float]) -> dict[Limit, float]:
    spent = {limit: after[limit] - before.get(limit, 0.0) for limit in after}
    return {limit: seconds for limit, seconds in spent.items() if seconds > 0}


def traced(run: Run, use: Callable[[], None], *, received: bool = False) -> dict[Limit, float]:
    """What limited the connection while it was used; the trace's verdict is held against it."""
    run.trace()
    run.shake_hands()
    before, start = run.live(received=received), run.pair.now
    use()
    whole = run.live(received=received)
    spent = since(before, whole)
    assert sum(spent.values()) == pytest.approx(run.pair.now - start, rel=0.02)
    total = sum(whole.values())
    for level in LEVELS:
        connection = run.read(level)
        limits = connection.receiving_limits if received else connection.sending_limits
        assert connection.direction == ("received" if received else "sent")
        for limit in {*whole, *limits.totals}:
            seen = limits.totals.get(limit, 0.0) / 1000
            assert seen == pytest.approx(whole.get(limit, 0.0), abs=0.12 * total), (level, limit)
        assert main_limit(limits.totals) is main_limit(whole)  # type: ignore[arg-type]
    return spent


def test_a_black_hole_is_loss_recovery(tmp_path: Path) -> None:
    run = Run(tmp_path, rate=1_250_000)

    def use() -> None:
        run.ask()
        run.server.send_stream_data(0, bytes(2_000_000), end_stream=True)
        run.pair.run(lambda: run.at_client > 500_000)
        run.pair.up.loss = run.pair.down.loss = 1.0
        run.wait(7.0)
        run.pair.up.loss = run.pair.down.loss = 0.0
        run.pair.run(lambda: run.at_client >= 2_000_000)

    spent = traced(run, use)
    assert spent[Limit.LOSS_RECOVERY] > 6.0
    assert main_limit(spent) is Limit.LOSS_RECOVERY
    assert spent[Limit.CONGESTION] < 2.5


def test_a_black_hole_is_read_from_a_trace_without_probe_timeouts(tmp_path: Path) -> None:
    """Many writers do not log `pto_count`; the silence of the peer shows the same."""
    run = Run(tmp_path, rate=1_250_000)
    run.trace()
    run.shake_hands()
    run.ask()
    run.server.send_stream_data(0, bytes(1_000_000), end_stream=True)
    run.pair.run(lambda: run.at_client > 500_000)
    run.pair.up.loss = run.pair.down.loss = 1.0
    run.wait(7.0)
    run.pair.up.loss = run.pair.down.loss = 0.0
    run.pair.run(lambda: run.at_client >= 1_000_000)
    live = run.live()
    run.server.stop_trace()
    lines = run.paths["core"].read_bytes().split(b"\x1e")[1:]
    events = [json.loads(line) for line in lines]
    for event in events:
        event.get("data", {}).pop("pto_count", None)
    run.paths["core"].write_bytes(sequential(events))
    seen = run.read("core").sending_limits.totals
    assert seen[Limit.LOSS_RECOVERY] / 1000 == pytest.approx(live[Limit.LOSS_RECOVERY], rel=0.1)
    assert seen[Limit.CONGESTION] / 1000 == pytest.approx(live[Limit.CONGESTION], abs=0.5)


def test_a_full_window_is_congestion_control(tmp_path: Path) -> None:
    run = Run(tmp_path, rate=1_250_000)

    def use() -> None:
        run.ask()
        run.server.send_stream_data(0, bytes(2_000_000), end_stream=True)
        run.pair.run(lambda: run.at_client >= 2_000_000)

    spent = traced(run, use)
    assert spent[Limit.CONGESTION] > 0.8 * sum(spent.values())


def test_data_that_waits_for_the_pacer_is_pacing(tmp_path: Path) -> None:
    """No bottleneck and a long path: a window is spread over most of each round trip."""
    run = Run(tmp_path, delay=0.2)

    def use() -> None:
        run.ask()
        run.server.send_stream_data(0, bytes(3_000_000), end_stream=True)
        run.pair.run(lambda: run.at_client >= 3_000_000)

    spent = traced(run, use)
    assert spent[Limit.PACING] > 0.3 * sum(spent.values())
    assert spent[Limit.PACING] + spent[Limit.CONGESTION] > 0.6 * sum(spent.values())


@pytest.mark.parametrize(
    ("window", "limit"),
    [("max_stream_data", Limit.STREAM), ("max_data", Limit.CONNECTION)],
)
def test_credit_of_the_peer_is_flow_control(tmp_path: Path, window: str, limit: Limit) -> None:
    run = Run(tmp_path, delay=0.05, client={window: 10_000})

    def use() -> None:
        run.ask()
        run.server.send_stream_data(0, bytes(200_000), end_stream=True)
        run.pair.run(lambda: run.at_client >= 200_000)

    spent = traced(run, use)
    assert main_limit(spent) is limit
    assert spent[limit] > 0.55 * sum(spent.values())


def test_a_slow_origin_is_the_application(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def use() -> None:
        run.ask()
        for _ in range(20):
            run.server.send_stream_data(0, bytes(2000))
            run.wait(0.2)
        run.server.send_stream_data(0, b"", end_stream=True)
        run.pair.run(lambda: not run.server.recovery.bytes_in_flight)

    spent = traced(run, use)
    assert spent[Limit.APPLICATION] > 0.95 * sum(spent.values())


def test_a_quiet_connection_is_idle(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def use() -> None:
        run.ask()
        run.server.send_stream_data(0, bytes(20_000), end_stream=True)
        run.pair.run(lambda: run.at_client >= 20_000)
        run.wait(5.0)

    run.shake_hands()
    before = run.live()
    use()
    spent = since(before, run.live())
    assert spent[Limit.IDLE] > 4.8
    assert main_limit(spent) is not Limit.IDLE


def test_a_small_window_of_ours_limits_an_upload(tmp_path: Path) -> None:
    """Though the data is read at once, a window per round trip is all that the client may send."""
    run = Run(tmp_path, delay=0.05, server={"max_stream_data": 20_000})

    def use() -> None:
        run.client.send_stream_data(0, bytes(400_000), end_stream=True)
        run.pair.run(lambda: run.at_server >= 400_000)

    spent = traced(run, use, received=True)
    assert main_limit(spent) is Limit.RECEIVE_WINDOW
    assert spent[Limit.RECEIVE_WINDOW] > 0.6 * sum(spent.values())


def test_many_requests_use_up_no_window_that_was_raised_in_time(tmp_path: Path) -> None:
    """Together they are far more than a window; it is an upload after them that is looked at."""
    run = Run(tmp_path, server={"max_data": 100_000})
    run.shake_hands()
    for number in range(200):
        run.client.send_stream_data(4 * number, bytes(2000), end_stream=True)
        run.pair.run(lambda wanted=2000 * (number + 1): run.at_server >= wanted)
        run.server.send_stream_data(4 * number, b"done", end_stream=True)
    run.client.send_stream_data(800, bytes(500))
    run.wait(1.0)
    received = run.live(received=True)
    assert Limit.RECEIVE_WINDOW not in received
    assert received[Limit.PEER] > 0.8


def test_a_slow_reader_of_ours_limits_an_upload(tmp_path: Path) -> None:
    run = Run(tmp_path, server={"max_data": 50_000})
    run.consumes = False

    def use() -> None:
        run.client.send_stream_data(0, bytes(100_000), end_stream=True)
        run.pair.run(lambda: run.at_server >= 50_000)
        run.wait(3.0)
        run.server.consume(0, run.at_server)
        run.pair.run(lambda: run.at_server >= 100_000)

    spent = traced(run, use, received=True)
    assert spent[Limit.RECEIVE_WINDOW] > 2.9


def test_an_upload_that_the_client_paces_is_receiving(tmp_path: Path) -> None:
    """The client's window and the path set the pace, and nothing of ours."""
    run = Run(tmp_path, rate=500_000)

    def use() -> None:
        run.client.send_stream_data(0, bytes(1_500_000), end_stream=True)
        run.pair.run(lambda: run.at_server >= 1_500_000)

    spent = traced(run, use, received=True)
    assert spent[Limit.RECEIVING] > 0.8 * sum(spent.values())
    assert run.server.limited_by(run.pair.now) is Limit.RECEIVING
    # Nor is sending reported to lack data: no response is due before the upload is over.
    assert run.live().get(Limit.APPLICATION, 0.0) < 0.1


def test_a_client_that_stops_in_its_upload_is_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def use() -> None:
        run.client.send_stream_data(0, bytes(30_000))
        run.wait(4.0)
        run.client.send_stream_data(0, bytes(30_000), end_stream=True)
        run.pair.run(lambda: run.at_server >= 60_000)

    spent = traced(run, use, received=True)
    assert spent[Limit.PEER] > 3.5


def test_a_trace_begun_in_mid_connection_covers_its_own_time(tmp_path: Path) -> None:
    run = Run(tmp_path, rate=1_250_000)
    run.shake_hands()
    run.ask()
    run.server.send_stream_data(0, bytes(4_000_000), end_stream=True)
    run.pair.run(lambda: run.at_client > 3_000_000)
    run.trace()
    before, start = run.live(), run.pair.now
    got, lost = run.at_client, run.server.recovery.packets_lost
    run.pair.run(lambda: run.at_client >= 4_000_000)
    spent, took = since(before, run.live()), run.pair.now - start
    rate = 8 * (run.at_client - got) / took
    for level in LEVELS:
        connection = run.read(level)
        facts = summary(connection)
        assert connection.begins_late
        assert facts["handshake"] == {
            "complete": None, "confirmed": None, "early_data": False, "before_trace": True,
        }  # fmt: skip
        assert facts["sent"]["goodput"] == pytest.approx(rate, rel=0.1)
        assert facts["sent"]["stream_bytes"] < 1_100_000
        assert connection.streams.rows[0].sent < 1_100_000
        assert facts["loss"]["lost"] == run.server.recovery.packets_lost - lost
        assert main_limit(connection.sending_limits.totals) is main_limit(spent)  # type: ignore[arg-type]
        assert Limit.HANDSHAKE not in connection.sending_limits.totals
        assert "kB sent" in headline(connection)
