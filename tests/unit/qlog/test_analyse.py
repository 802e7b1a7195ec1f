"""The analysis against ground truth on a link of known delay, rate and loss."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from quicedge.config.tracelimits import (
    QLOG_MAX_CONNECTIONS,
    QLOG_MAX_DETAIL,
    QLOG_MAX_GAPS,
    QLOG_MAX_RUNS,
    QLOG_MAX_STREAMS,
    QLOG_SERIES_POINTS,
)
from quicedge.qlog.align import clock_offset
from quicedge.qlog.analyse import analyse
from quicedge.qlog.blocked_time import MEANINGS, Limit
from quicedge.qlog.connection import Connection
from quicedge.qlog.diff import ends
from quicedge.qlog.gaps import Gaps
from quicedge.qlog.names import space_of
from quicedge.qlog.summary import summary
from quicedge.qlog.verdict import PHRASES, findings, headline
from tests.support.qlogtraces import Transfer, lossy, sequential, transfer


def both(directory: Path, done: Transfer) -> tuple[Connection, Connection]:
    client, server = (analyse(path).main for path in done.write(directory))
    assert client is not None
    assert server is not None
    return client, server


def made(
    directory: Path, events: list[tuple[float, str, dict[str, Any]]], **trace: Any
) -> Connection:
    """The analysis of events written by hand, in today's vocabulary."""
    header = {
        "file_schema": "urn:ietf:params:qlog:file:sequential",
        "serialization_format": "application/qlog+json-seq",
        "trace": {"vantage_point": {"type": "server"},
                  "event_schemas": ["urn:ietf:params:qlog:events:quic-13"], **trace},
    }  # fmt: skip
    records = [{"time": time, "name": f"quic:{name}", "data": data} for time, name, data in events]
    path = directory / "made.sqlog"
    path.write_bytes(sequential([header, *records]))
    found = analyse(path).main
    assert found is not None
    return found


def packet(number: int, *frames: dict[str, Any], kind: str = "1RTT", size: int = 1200) -> Any:
    return {"header": {"packet_type": kind, "packet_number": number}, "raw": {"length": size},
            "frames": list(frames)}  # fmt: skip


def stream(identifier: int, offset: int, length: int, fin: bool = False) -> dict[str, Any]:
    return {"frame_type": "stream", "stream_id": identifier, "offset": offset, "fin": fin,
            "raw": {"payload_length": length}}  # fmt: skip


DONE = (0.0, "connection_state_updated", {"new": "handshake_complete"})


def test_lossy_transfer_against_the_truth(tmp_path: Path) -> None:
    done = lossy()
    client, server = both(tmp_path, done)
    assert server.lost == done.datagrams_lost > 0
    assert server.spurious == 0
    assert server.sent.count - client.received.count == done.datagrams_lost
    # A retransmission that is lost again leaves no hole that was not there.
    assert client.gaps.lost + client.gaps.others == done.datagrams_lost
    assert client.gaps.lost >= done.datagrams_lost - 1
    assert server.gaps.lost == server.gaps.others == 0
    assert server.recovery.min_rtt == pytest.approx(40, rel=0.05)
    assert client.recovery.min_rtt == pytest.approx(40, rel=0.05)
    for connection, way in ((client, "received"), (server, "sent")):
        assert connection.direction == way
        # Bodies, heads and HTTP/3 framing: a little more than the files.
        assert sum(done.sizes) < connection.data[way][2] < sum(done.sizes) + 200
        rows = connection.streams.rows
        for index, size in enumerate(done.sizes):
            row = rows[4 * index]
            assert size < (row.received if way == "received" else row.sent) < size + 40
            assert (row.method, row.path, row.status) == ("GET", f"/file{index}", "200")
        assert connection.streams.due_to_send == connection.streams.due_to_receive == 0
    assert server.handshake_complete == pytest.approx(41, abs=2)
    assert client.handshake_complete == pytest.approx(41, abs=2)
    assert client.handshake_confirmed == pytest.approx(82, abs=4)
    assert client.version == "00000001"
    assert client.alpn == "h3"
    assert client.close is not None
    assert client.close["time"] == pytest.approx(client.end, abs=1)
    assert {name: client.close[name] for name in ("by", "code", "reason")} == {
        "by": "local",
        "code": 256,
        "reason": "done",
    }
    assert sum(server.limits.totals.values()) == pytest.approx(server.duration, abs=1)
    assert (
        max(server.limits.totals, key=lambda state: server.limits.totals[state]) == Limit.CONGESTION
    )
    assert (
        max(client.limits.totals, key=lambda state: client.limits.totals[state]) == Limit.RECEIVING
    )
    assert server.recovery.window_cuts >= 3


def test_goodput_on_a_clean_link_is_the_rate(tmp_path: Path) -> None:
    client, _ = both(tmp_path, transfer(sizes=(3_000_000,), loss=0, rate=1_250_000, queue=200_000))
    first, last, data = client.data["received"]
    goodput = data * 8 / (last - first) / 1000
    assert goodput == pytest.approx(10 * 1150 / 1200, rel=0.1)
    assert client.lost == 0


def test_losses_are_inferred_where_the_trace_has_none(tmp_path: Path) -> None:
    done = lossy()
    trace = json.loads(json.dumps(done.server))
    events = trace["traces"][0]["events"]
    trace["traces"][0]["events"] = [e for e in events if e["name"] != "recovery:packet_lost"]
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(trace))
    found = analyse(path).main
    assert found is not None
    assert summary(found)["loss"]["inferred"] is True
    # The last packets of a flight are lost by time, which the packet threshold does not see.
    assert 0.3 * done.datagrams_lost <= found.lost <= done.datagrams_lost


def test_spurious_loss_is_seen(tmp_path: Path) -> None:
    ack = {"frame_type": "ack", "acked_ranges": [[0, 9]]}
    connection = made(
        tmp_path,
        [DONE, *[(number, "packet_sent", packet(number, stream(1, 0, 10))) for number in range(10)],
         (20, "packet_lost", {"header": {"packet_type": "1RTT", "packet_number": 4}}),
         (30, "packet_received", packet(0, ack))],
    )  # fmt: skip
    assert (connection.lost, connection.spurious, connection.flight.acknowledged) == (1, 1, 9)
    assert connection.flight.size == 0


def test_round_trips_from_acknowledgements_alone(tmp_path: Path) -> None:
    events: list[tuple[float, str, dict[str, Any]]] = [DONE]
    for number in range(20):
        ack = {"frame_type": "ack", "acked_ranges": [[0, number]]}
        events.append((number * 10, "packet_sent", packet(number, stream(1, number * 10, 10))))
        events.append((number * 10 + 7, "packet_received", packet(number, ack)))
    connection = made(tmp_path, events)
    assert connection.recovery.rtt.count == 20
    assert connection.recovery.min_rtt == pytest.approx(7)
    assert connection.recovery.rtt.quantile(0.5) == pytest.approx(7, rel=0.02)


def test_limits_of_a_sender(tmp_path: Path) -> None:
    def metrics(window: int, in_flight: int, pto: int = 0) -> dict[str, Any]:
        return {"congestion_window": window, "bytes_in_flight": in_flight, "pto_count": pto}

    name = "recovery_metrics_updated"
    connection = made(
        tmp_path,
        [(0, "packet_sent", packet(0, {"frame_type": "crypto"}, kind="handshake")),
         (100, "connection_state_updated", {"new": "handshake_complete"}),
         (100, "parameters_set", {"initiator": "remote", "initial_max_data": 5000}),
         (100, "packet_sent", packet(0, stream(1, 0, 1000))),
         (100, name, metrics(12000, 12000)),
         (300, name, metrics(12000, 3000)),
         (350, name, metrics(12000, 0)),
         (450, "packet_sent", packet(1, stream(1, 1000, 4000))),
         (450, name, metrics(12000, 4000)),
         (650, "packet_received", packet(0, {"frame_type": "max_data", "maximum": 9000})),
         (650, name, metrics(12000, 4000, pto=1)),
         (700, name, metrics(12000, 0)),
         (720, name, metrics(12000, 0))],
    )  # fmt: skip
    assert connection.limits.totals == {
        Limit.HANDSHAKE: 100, Limit.CONGESTION: 200, Limit.APPLICATION: 170, Limit.CONNECTION: 200,
        Limit.LOSS_RECOVERY: 50,
    }  # fmt: skip


def test_silence_without_anything_in_flight_is_no_loss_recovery(tmp_path: Path) -> None:
    """Nor is it in a trace that has no acknowledgements to miss."""
    ack = {"frame_type": "ack", "acked_ranges": [[0, 0]]}
    answered = made(
        tmp_path,
        [DONE, (0, "packet_sent", packet(0, stream(1, 0, 100))),
         (20, "packet_received", packet(0, ack)),
         (5000, "packet_sent", packet(1, stream(1, 100, 100))),
         (5020, "packet_received", packet(1, {**ack, "acked_ranges": [[1, 1]]})),
         (9000, "spin_bit_updated", {"state": True})],
    )  # fmt: skip
    assert answered.sending_limits.totals == {Limit.APPLICATION: 9000}
    frameless = made(
        tmp_path,
        [DONE, (0, "packet_sent", packet(0)),
         (0, "recovery_metrics_updated", {"smoothed_rtt": 20, "latest_rtt": 20}),
         (5000, "packet_sent", packet(1)), (9000, "spin_bit_updated", {"state": True})],
    )  # fmt: skip
    assert Limit.LOSS_RECOVERY not in frameless.sending_limits.totals


def test_the_headline_is_about_the_time_that_was_not_idle(tmp_path: Path) -> None:
    ack = {"frame_type": "ack", "acked_ranges": [[0, 1]]}
    connection = made(
        tmp_path,
        [DONE, (0, "packet_sent", packet(0, stream(1, 0, 900))),
         (0, "recovery_metrics_updated", {"congestion_window": 1500, "bytes_in_flight": 1200}),
         (60, "packet_sent", packet(1, stream(1, 900, 100, fin=True))),
         (80, "packet_received", packet(0, ack)),
         (80, "recovery_metrics_updated", {"congestion_window": 1500, "bytes_in_flight": 0}),
         (5000, "spin_bit_updated", {"state": True})],
    )  # fmt: skip
    assert connection.limits.totals == {Limit.CONGESTION: 80, Limit.IDLE: 4920}
    assert headline(connection).endswith(
        "100 % of the time that was not idle the congestion window was full."
    )


def test_a_reason_that_the_trace_names_counts(tmp_path: Path) -> None:
    connection = made(
        tmp_path,
        [DONE,
         (10, "stream_data_blocked_updated",
          {"new": "blocked", "stream_id": 0, "reason": "stream_flow_control"}),
         (60, "stream_data_blocked_updated", {"new": "unblocked", "stream_id": 0}),
         (100, "spin_bit_updated", {"state": True})],
    )  # fmt: skip
    assert connection.limits.totals == {Limit.IDLE: 50, Limit.STREAM: 50}


def test_flow_control_that_stalls_is_found(tmp_path: Path) -> None:
    done = transfer(sizes=(400_000,), loss=0, rate=None, client_options={"max_stream_data": 16384})
    client, server = both(tmp_path, done)
    for connection in (server,):
        share = connection.limits.totals.get(Limit.STREAM, 0) / connection.duration
        assert share > 0.3, connection.limits.totals
        assert any("Flow control" in finding.sentence for finding in findings(connection))
        assert "flow control" in headline(connection)
    assert client.data["received"][2] > 400_000


def test_receiver_waits_for_a_silent_peer(tmp_path: Path) -> None:
    connection = made(
        tmp_path,
        [DONE, (0, "packet_received", packet(0, stream(0, 0, 20))),
         (10, "packet_received", packet(1, stream(0, 20, 1000))),
         (1010, "packet_received", packet(2, stream(0, 1020, 1000)))],
        vantage_point={"type": "client"},
    )  # fmt: skip
    assert connection.limits.totals == {Limit.RECEIVING: 60, Limit.PEER: 950}


def test_reading_one_side_of_another_clock(tmp_path: Path) -> None:
    done = lossy()
    shifted = json.loads(json.dumps(done.server))
    for event in shifted["traces"][0]["events"]:
        event["time"] += 12345
    later = Transfer(done.client, shifted, 0, [], 0)
    client, server = both(tmp_path, later)
    # The server's first event is the client's first datagram, half a round trip later.
    assert clock_offset(client, server) == pytest.approx(-20, abs=0.5)
    assert clock_offset(server, client) == pytest.approx(20, abs=0.5)


def test_several_connections_in_one_trace(tmp_path: Path) -> None:
    events = [
        {"time": 0, "name": "quic:packet_sent", "group_id": f"g{index}", "data": packet(0)}
        for index in range(QLOG_MAX_CONNECTIONS + 5)
    ]
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential([{"qlog_version": "0.3", "trace": {}}, *events]))
    analysis = analyse(path)
    assert len(analysis.connections) == QLOG_MAX_CONNECTIONS
    assert analysis.beyond_limit == 5
    assert analysis.connections[3].identifier == "g3"


def test_nothing_grows_with_the_trace(tmp_path: Path) -> None:
    def items() -> Any:
        yield {"qlog_version": "0.3", "trace": {"vantage_point": {"type": "server"}}}
        for number in range(QLOG_MAX_STREAMS * 3):
            yield {"time": number * 3.7, "name": "quic:packet_sent",
                   "data": packet(number, stream(number * 4, 0, 900, True))}  # fmt: skip
            yield {"time": number * 3.7, "name": "quic:recovery_metrics_updated",
                   "data": {"congestion_window": 9000 + number, "bytes_in_flight": number,
                            "latest_rtt": 10 + number % 977}}  # fmt: skip

    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential(list(items())))
    found = analyse(path).main
    assert found is not None
    assert len(found.streams.rows) <= QLOG_MAX_STREAMS + 2
    assert found.streams.beyond_limit == QLOG_MAX_STREAMS * 2 - 1
    assert sum(row.sent for row in found.streams.rows.values()) == 900 * QLOG_MAX_STREAMS * 3
    assert len(found.streams.sent.runs) <= QLOG_MAX_RUNS
    assert sum(run.size for run in found.streams.sent.runs) == 900 * QLOG_MAX_STREAMS * 3
    assert len(found.sent.details) == QLOG_MAX_DETAIL
    for series in (
        found.recovery.window_series,
        found.recovery.flight_series,
        found.recovery.rtt_series,
    ):
        assert QLOG_SERIES_POINTS / 4 < len(series.points()) <= QLOG_SERIES_POINTS
    assert found.goodput.totals["sent"] == 900 * QLOG_MAX_STREAMS * 3


def test_skipped_packet_numbers_are_no_losses(tmp_path: Path) -> None:
    """RFC 9000 section 21.4: a sender may skip numbers. Only a hole in the data shows a loss."""
    numbers = [0, 1, 3, 4, 5, 9]
    events: list[tuple[float, str, dict[str, Any]]] = [
        (0, "packet_received", packet(0, {"frame_type": "crypto"}, kind="initial")), DONE
    ]  # fmt: skip
    offset = 0
    for at, number in enumerate(numbers):
        events.append((at, "packet_received", packet(number, stream(0, offset, 1000))))
        offset += 1000
    connection = made(tmp_path, events, vantage_point={"type": "client"})
    loss = summary(connection)["loss"]
    assert (loss["never_received"], loss["numbers_missing"]) == (0, 4)
    assert not any("never arrived" in finding.sentence for finding in findings(connection))


def test_packets_whose_data_lacks_never_arrived(tmp_path: Path) -> None:
    events: list[tuple[float, str, dict[str, Any]]] = [
        (0, "packet_received", packet(0, {"frame_type": "crypto"}, kind="initial")), DONE,
        (1, "packet_received", packet(0, stream(0, 0, 1000))),
        (2, "packet_received", packet(3, stream(0, 3000, 1000))),  # 1 and 2 are lost
        (3, "packet_received", packet(5, stream(0, 4000, 1000))),  # 4 was skipped
        (4, "packet_received", packet(7, stream(0, 6000, 1000))),  # 6 comes late
        (5, "packet_received", packet(6, stream(0, 5000, 1000))),
        (6, "packet_received", packet(8, stream(0, 1000, 2000))),
    ]  # fmt: skip
    connection = made(tmp_path, events, vantage_point={"type": "client"})
    loss = summary(connection)["loss"]
    assert (loss["never_received"], loss["numbers_missing"], loss["reordered"]) == (2, 3, 1)


def test_missing_numbers_remembered_are_bounded() -> None:
    gaps = Gaps()
    gaps.received("application_data", 0)
    gaps.received("application_data", 1 << 40)
    assert gaps.others == (1 << 40) - 1
    gaps.data(1200, 1 << 40)
    assert gaps.lost == QLOG_MAX_GAPS


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([20.0, 200.0, 210.0], False),  # three samples prove nothing
        ([20.0] * 38 + [300.0] * 2, False),  # nor does a single delay among many
        ([20.0] * 20 + [200.0 + at for at in range(20)], True),
    ],
)
def test_a_queue_is_inferred_from_many_samples_only(
    tmp_path: Path, samples: list[float], told: bool
) -> None:
    metrics = [
        (at * 10.0, "recovery_metrics_updated",
         {"latest_rtt": rtt + at / 1000, "smoothed_rtt": rtt, "bytes_in_flight": 1000})
        for at, rtt in enumerate(samples)
    ]  # fmt: skip
    connection = made(tmp_path, [DONE, *metrics])
    assert any("queue" in finding.sentence for finding in findings(connection)) is told


def test_our_idle_timeout_is_no_error_of_the_peer(tmp_path: Path) -> None:
    """As traces had it before: an internal error that the peer is said to have sent."""
    connection = made(
        tmp_path,
        [DONE, (10, "packet_received", packet(0, stream(0, 0, 100))),
         (20, "packet_sent", packet(0, stream(0, 0, 100))),
         (900, "recovery_metrics_updated", {"pto_count": 4, "bytes_in_flight": 1200}),
         (5010, "connection_closed",
          {"initiator": "remote", "connection_error": "internal_error", "error_code": 1,
           "reason": "Idle timeout", "trigger": "idle_timeout"})],
    )  # fmt: skip
    assert connection.close == {
        "time": 5010, "by": "local", "error": "", "code": None, "reason": "Idle timeout",
        "trigger": "idle_timeout",
    }  # fmt: skip
    sentences = [finding.sentence for finding in findings(connection)]
    assert (
        "The idle timeout ended it: nothing arrived for 5.00 s, and 4 probe timeouts expired"
        " unanswered." in sentences
    )
    assert not any("error" in sentence for sentence in sentences)


def test_packets_after_the_other_end_are_lost_to_nobody(tmp_path: Path) -> None:
    """The client closes in mid-transfer; what is still under way reaches nobody."""
    done = lossy()
    client, server = both(tmp_path, done)
    cut = client.end / 2
    trace = json.loads(json.dumps(done.client))
    events = trace["traces"][0]["events"]
    start = events[0]["time"]
    trace["traces"][0]["events"] = [event for event in events if event["time"] - start <= cut]
    path = tmp_path / "cut.qlog"
    path.write_text(json.dumps(trace))
    short = analyse(path).main
    assert short is not None
    lost = [
        detail.time for detail in server.sent.details
        if (space_of(detail.type), detail.number)
        not in {(space_of(other.type), other.number) for other in client.received.details}
        and detail.time + 40 < cut
    ]  # fmt: skip
    told = next(sentence for sentence in ends(short, server) if "server →" in sentence)
    match = re.search(r"(\d+) of them after the receiver's end.* (\d+) lost or dropped", told)
    assert match is not None, told
    assert int(match[1]) > server.sent.count / 4
    assert int(match[2]) == pytest.approx(len(lost), abs=3)


def test_traces_of_which_one_begins_late_show_no_losses(tmp_path: Path) -> None:
    client, server = both(tmp_path, lossy())
    server.begins_late = True
    assert ends(client, server) == [
        "A trace begins in mid-connection: what the network lost cannot be counted."
    ]


@pytest.mark.parametrize(
    ("events", "late"),
    [
        ([(0, "packet_received", packet(0, kind="initial")), (1, "packet_sent", packet(0))], False),
        ([(0, "connection_state_updated", {"new": "handshake_started"}),
          (1, "packet_sent", packet(0))], False),
        ([(0, "packet_sent", packet(0, kind="0RTT"))], False),
        ([(0, "connection_state_updated", {"new": "handshake_complete"}),
          (3, "packet_sent", packet(2021, stream(0, 2_472_147, 1430)))], True),
        ([(0, "parameters_set", {"initiator": "remote", "initial_max_data": 10})], None),
    ],
)  # fmt: skip
def test_where_a_trace_begins(tmp_path: Path, events: Any, late: bool | None) -> None:
    connection = made(tmp_path, events)
    assert connection.begins_late is late
    if late:
        assert connection.handshake_complete is None
        assert Limit.HANDSHAKE not in connection.sending_limits.totals
        assert connection.data["sent"][2] == 1430
        assert connection.streams.rows[0].sent == 1430


def test_every_limit_has_a_meaning_a_phrase_and_a_colour() -> None:
    css = resources.files("quicedge.qlog").joinpath("assets", "report.css").read_text()
    dashboard = resources.files("quicedge.admin").joinpath("assets", "dashboard.js").read_text()
    phrases = dashboard[dashboard.index("const LIMITS = {") :]
    phrases = phrases[: phrases.index("};")]
    assert set(MEANINGS) == set(PHRASES) == set(Limit)
    for limit in Limit:
        assert css.count(f"--s-{limit.value.replace('_', '-')}:") == 2
        assert (f" {limit.value}: " in phrases) is (limit is not Limit.IDLE)
