"""What a connection writes of itself: valid by the drafts, complete, and true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.qlog.analyse import analyse
from quicedge.qlog.blocked_time import Limit
from quicedge.qlog.validate import validate
from quicedge.quic.connection_id_issuer import ConnectionIdIssuer
from quicedge.quic.frames import describe
from quicedge.quic.losses import LostPackets
from quicedge.telemetry.trace import Trace
from tests.support.quicpair import SECRET, make_pair
from tests.support.simnet import Link, Pair

SIZE = 400_000


class File:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self._file = path.open("wb")

    def write(self, lines: bytes) -> bool:
        self._file.write(lines)
        return True

    def close(self) -> None:
        self._file.close()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(part) for part in path.read_bytes().split(b"\x1e")[1:]]


def named(path: Path, name: str) -> list[dict[str, Any]]:
    return [record["data"] for record in records(path)[1:] if record["name"] == name]


def transfer(path: Path, *, level: str = "extra", loss: float = 0.0, up: bool = False) -> Pair:
    """A download (or upload) whose server side is traced."""
    link = {"delay": 0.02, "loss": loss, "rate": 2_000_000, "queue": 60_000}
    pair = make_pair(Link(**link), Link(**link), seed=3, mtu_ceiling=1452)  # type: ignore[arg-type]
    trace = Trace(File(path), level=level, group_id="aa", started=pair.now, wall_clock=1.7e9)
    server = pair.server.connection
    server.start_trace(trace)
    receiver = pair.server if up else pair.client
    received = 0

    def count(event: Any) -> None:
        nonlocal received
        data = getattr(event, "data", b"")
        received += len(data)
        if up and data:
            server.consume(event.stream_id, len(data))

    receiver.on_event = count
    pair.transmit()
    pair.run(lambda: server.handshake_complete)
    if up:
        pair.client.connection.send_stream_data(0, bytes(SIZE), end_stream=True)
    else:
        pair.client.connection.send_stream_data(0, b"?", end_stream=True)
        pair.run(lambda: any(getattr(e, "stream_id", None) == 0 for e in pair.server.events))
        server.send_stream_data(0, bytes(SIZE), end_stream=True)
    pair.run(lambda: received >= SIZE)
    pair.up.loss = 0.0  # the client closes once
    pair.client.connection.close()
    pair.run(lambda: server.is_terminated)
    return pair


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("level", ["core", "base", "extra"])
def test_a_trace_is_valid_by_the_drafts(tmp_path: Path, level: str, up: bool) -> None:
    path = tmp_path / "t.sqlog"
    transfer(path, level=level, loss=0.02, up=up)
    result = validate(path)
    assert result.conforms, [vars(finding) for finding in result.findings.values()]
    wanted = {"core": {"core"}, "base": {"core", "base"}, "extra": {"core", "base", "extra"}}
    assert set(result.importance) == wanted[level]


def test_every_packet_and_loss_is_there(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlog"
    pair = transfer(path, loss=0.02)
    server = pair.server.connection
    sent = named(path, "quic:packet_sent")
    assert len(sent) == server.counters.packets_sent
    assert sum(packet["raw"]["length"] for packet in sent) <= server.counters.bytes_sent
    assert len(named(path, "quic:packet_lost")) == server.recovery.packets_lost > 0
    assert len(named(path, "quic:packet_received")) == server.counters.packets_received
    frames = [f for packet in sent for f in packet["frames"] if f["frame_type"] == "stream"]
    covered = {(f["offset"], f["raw"]["payload_length"]) for f in frames if f["stream_id"] == 0}
    assert sum(length for _, length in covered) >= SIZE
    metrics = named(path, "quic:recovery_metrics_updated")
    assert metrics[-1].keys() < {"min_rtt", "smoothed_rtt", "latest_rtt", "rtt_variance",
                                 "congestion_window", "bytes_in_flight", "pacing_rate",
                                 "ssthresh", "pto_count"}  # fmt: skip
    assert [data["new"] for data in named(path, "quic:connection_state_updated")][-1] == "draining"
    assert named(path, "quic:connection_closed")[0]["initiator"] == "remote"


def test_our_own_reader_understands_it(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlog"
    pair = transfer(path, loss=0.02)
    analysis = analyse(path)
    assert not analysis.bad_events
    connection = analysis.main
    assert connection is not None
    assert connection.events > 300
    assert pair.server.connection.recovery.packets_lost > 0


@pytest.mark.parametrize("level", ["core", "base", "extra"])
@pytest.mark.parametrize("late", [False, True])
def test_version_and_protocol_are_told_once(tmp_path: Path, level: str, late: bool) -> None:
    """Core events: a trace of any level has them, also one that starts after the handshake."""
    path = tmp_path / "t.sqlog"
    pair = make_pair(client_options={"alpn_protocols": ["\x7fgrease", "other", "test"]})
    server = pair.server.connection
    trace = Trace(File(path), level=level, group_id="aa", started=pair.now, wall_clock=1.7e9)
    if not late:
        server.start_trace(trace)
    pair.transmit()
    pair.run(lambda: server.handshake_confirmed)
    if late:
        server.start_trace(trace)
    pair.run(lambda: pair.client.connection._handshake_confirmed)
    server.stop_trace()
    (versions,) = named(path, "quic:version_information")
    assert versions == {
        "server_versions": ["00000001", "6b3343cf"],
        "client_versions": ["00000001", "6b3343cf"],
        "chosen_version": "00000001",
    }
    (alpns,) = named(path, "quic:alpn_information")
    assert alpns["server_alpns"] == [{"string_value": "h3"}, {"string_value": "test"}]
    assert alpns["chosen_alpn"] == {"string_value": "test"}
    if not late:  # what the client offered is forgotten with the handshake
        assert alpns["client_alpns"] == [
            {"byte_value": b"\x7fgrease".hex()}, {"string_value": "other"},
            {"string_value": "test"},
        ]  # fmt: skip
    assert validate(path).errors == 0
    found = analyse(path).main
    assert found is not None
    assert (found.version, found.alpn) == ("00000001", "test")


def test_protocols_without_agreement_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlog"
    pair = make_pair(client_options={"alpn_protocols": ["other"]})
    server = pair.server.connection
    server.start_trace(
        Trace(File(path), level="core", group_id="aa", started=pair.now, wall_clock=1.7e9)
    )
    pair.transmit()
    pair.run(lambda: server.is_terminated)
    (alpns,) = named(path, "quic:alpn_information")
    assert alpns["client_alpns"] == [{"string_value": "other"}]
    assert "chosen_alpn" not in alpns
    assert validate(path).errors == 0


def test_a_trace_that_starts_late_begins_with_what_was_agreed(tmp_path: Path) -> None:
    pair = make_pair()
    pair.transmit()
    server = pair.server.connection
    pair.run(lambda: server.handshake_complete)
    path = tmp_path / "t.sqlog"
    server.start_trace(
        Trace(File(path), level="core", group_id="aa", started=pair.now, wall_clock=1.7e9)
    )
    server.stop_trace()
    owners = [data["initiator"] for data in named(path, "quic:parameters_set")]
    assert owners == ["local", "remote"]
    assert validate(path).errors == 0


def test_a_late_trace_records_the_initial_window(
    tmp_path: Path,
) -> None:
    pair = make_pair()
    pair.transmit()
    server = pair.server.connection
    pair.run(lambda: server.handshake_complete)
    recovery = server.recovery
    initial = recovery.controller.congestion_window
    recovery.controller.congestion_window = 5 * initial
    path = tmp_path / "t.sqlog"
    server.start_trace(
        Trace(File(path), level="base", group_id="aa", started=pair.now, wall_clock=1.7e9)
    )
    server.stop_trace()
    (parameters,) = named(path, "quic:recovery_parameters_set")
    assert parameters["initial_congestion_window"] == initial


def test_a_trace_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlog"
    pair = transfer(path)
    text = path.read_text()
    ids = ConnectionIdIssuer(secret=SECRET)
    for cid in pair.server.connection.local_ids.active:
        assert ids.reset_token(cid).hex() not in text


@given(st.binary(max_size=200))
def test_describing_frames_never_fails(payload: bytes) -> None:
    for frame in describe(payload, 3):
        assert frame["frame_type"]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=12),
    st.lists(st.integers(0, 70), max_size=30),
)
def test_spurious_losses_are_counted_once(lost: list[tuple[int, int]], acked: list[int]) -> None:
    """Against the plain way: a set of numbers."""
    log, model, at = LostPackets(), set(), 0
    for gap, length in lost:
        at += gap
        log.add(at, at + length)
        model |= set(range(at, at + length))
        at += length
    for number in acked:
        assert log.acknowledged([(number, number + 2)]) == len(model & {number, number + 1})
        model -= {number, number + 1}


def test_the_time_that_flow_control_takes_is_told() -> None:
    pair = make_pair(Link(delay=0.05), Link(delay=0.05), client_options={"max_stream_data": 20_000})
    server = pair.server.connection
    pair.transmit()
    pair.run(lambda: server.handshake_complete)
    pair.client.connection.send_stream_data(0, b"?", end_stream=True)
    pair.run(lambda: any(getattr(e, "stream_id", None) == 0 for e in pair.server.events))
    start = pair.now
    server.send_stream_data(0, bytes(200_000), end_stream=True)
    got = 0

    def count(event: Any) -> None:
        nonlocal got
        got += len(getattr(event, "data", b""))

    pair.client.on_event = count
    pair.run(lambda: got == 200_000)
    spent = server.limits.sent(pair.now)
    # Half of every round trip of 100 ms goes by until the client's credit arrives.
    assert 0.15 < spent[Limit.STREAM] < pair.now - start
    assert Limit.CONNECTION not in spent
    assert sum(spent.values()) == pytest.approx(pair.now - server.created_at, abs=0.06)
