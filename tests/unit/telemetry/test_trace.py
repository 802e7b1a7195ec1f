"""A trace as a file: its records, its levels, its limits."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from quicedge.config.tracelimits import QLOG_MAX_HELD
from quicedge.telemetry import events
from quicedge.telemetry.trace import Trace


@dataclass
class Kept:
    name: str = "t.sqlog"
    drop_reason: str = "the disk is slow"
    data: bytes = b""
    full: bool = False
    closed: bool = False
    writes: list[bytes] = field(default_factory=list)

    def write(self, lines: bytes) -> bool:
        if self.full:
            return False
        self.data += lines
        return True

    def close(self) -> None:
        self.closed = True

    def records(self) -> list[dict[str, object]]:
        assert all(part.endswith(b"\n") for part in self.data.split(b"\x1e")[1:])
        return [json.loads(part) for part in self.data.split(b"\x1e")[1:]]


def trace(sink: Kept, **options: object) -> Trace:
    defaults = {"level": "base", "group_id": "ab", "started": 100.0, "wall_clock": 1.7e9}
    return Trace(sink, **{**defaults, **options})  # type: ignore[arg-type]


def test_the_header_says_what_the_file_is() -> None:
    sink = Kept()
    trace(sink)
    (header,) = sink.records()
    assert header["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    common = header["trace"]["common_fields"]  # type: ignore[index]
    assert common["reference_time"]["wall_clock_time"] == "2023-11-14T22:13:20.000Z"


def test_times_are_milliseconds_since_the_start() -> None:
    sink = Kept()
    one = trace(sink)
    one.now = 100.25
    one.log(events.MtuUpdated(new=1400))
    one.log(events.PacketDropped(trigger="duplicate"))
    dropped = sink.records()[-1]
    assert dropped == {
        "time": 250.0,
        "name": "quic:packet_dropped",
        "data": {"trigger": "duplicate"},
    }
    assert len(sink.records()) == 2, "an extra event is no business of level base"


def test_a_run_of_packets_is_written_as_single_ones() -> None:
    sink = Kept()
    one = trace(sink)
    one.stream_packets_sent(7, 2, 1200, 4, 0, 1170)
    one.stream_packet_sent(9, 80, 4, 2340, 50, True)
    packets = [record["data"] for record in sink.records()[1:]]
    assert [p["header"]["packet_number"] for p in packets] == [7, 8, 9]  # type: ignore[index]
    assert [p["frames"][0]["raw"]["payload_length"] for p in packets] == [1170, 1170, 50]  # type: ignore[index]
    assert [p["frames"][0].get("fin") for p in packets] == [None, None, True]  # type: ignore[index]
    assert packets[2]["raw"] == {"length": 80}  # type: ignore[index]


def test_a_slow_disk_costs_events_and_the_trace_says_how_many() -> None:
    sink = Kept()
    one = trace(sink)
    sink.full = True
    one.log(events.PacketDropped(trigger="general"))
    one.stream_packets_sent(1, 2, 9, 0, 0, 5)
    sink.full = False
    one.log(events.PacketDropped(trigger="invalid"))
    assert one.dropped == 3
    lost, last = sink.records()[1:]
    assert lost["name"] == "loglevel:warning"
    assert "3 events lost" in lost["data"]["message"]  # type: ignore[index]
    assert last["data"] == {"trigger": "invalid"}


def test_a_trace_ends_at_its_size_and_says_so() -> None:
    sink = Kept()
    one = trace(sink, max_size=2000)
    for _ in range(100):
        one.log(events.PacketDropped(trigger="general"))
    assert one.closed
    assert sink.closed
    assert "size limit" in sink.records()[-1]["data"]["message"]  # type: ignore[index]
    assert len(sink.data) < 2200


def test_a_tentative_trace_writes_nothing_until_it_is_kept() -> None:
    sink, unwanted = Kept(), Kept()
    one, other = trace(sink, tentative=True), trace(unwanted, tentative=True)
    for each in (one, other):
        each.log(events.PacketDropped(trigger="general"))
    assert not sink.data
    one.keep()
    other.close()
    assert len(sink.records()) == 2
    assert not unwanted.data


def test_what_a_tentative_trace_holds_is_bounded() -> None:
    one = trace(Kept(), tentative=True)
    for _ in range(3000):
        one.log(events.PacketDropped(trigger="general"))
    assert sum(map(len, one._outputs[0].held or ())) <= QLOG_MAX_HELD


def test_a_second_sink_gets_its_own_header_level_and_opening() -> None:
    file, live = Kept(), Kept(name="")
    one = trace(file, level="core")
    one.log(events.PacketDropped(trigger="general"))
    one.attach(
        live, level="base", opening=lambda: one.log(events.ConnectionStarted(local={}, remote={}))
    )
    one.log(events.PacketDropped(trigger="invalid"))
    one.stream_packet_sent(9, 80, 4, 0, 50, False)
    assert [record.get("name") for record in file.records()] == [None, "quic:packet_sent"]
    assert [record.get("name") for record in live.records()] == [
        None,
        "quic:connection_started",
        "quic:packet_dropped",
        "quic:packet_sent",
    ]
    assert one.file == "t.sqlog"
    one.detach(live)
    assert live.closed
    assert not one.base, "nobody wants that much any more"
    one.end_file()
    assert file.closed
    assert one.closed
    assert one.file is None


def test_what_one_sink_loses_the_other_keeps() -> None:
    file, live = Kept(), Kept(name="", drop_reason="too slow")
    one = trace(file)
    one.attach(live, level="base")
    live.full = True
    one.log(events.PacketDropped(trigger="general"))
    live.full = False
    one.log(events.PacketDropped(trigger="invalid"))
    assert len(file.records()) == 3
    assert live.records()[1]["data"] == {"message": "1 events lost: too slow"}
    assert len(live.records()) == 3


def test_a_tentative_file_that_is_discarded_leaves_the_others() -> None:
    file, live = Kept(), Kept(name="")
    one = trace(file, tentative=True)
    one.attach(live, level="core")
    one.discard()
    assert not one.closed
    assert not file.data
    one.stream_packet_sent(9, 80, 4, 0, 50, False)
    assert len(live.records()) == 2
