"""Translation of dialects to one vocabulary, and of clocks to milliseconds since the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quicedge.qlog.event import Event
from quicedge.qlog.names import current_name
from quicedge.qlog.normalise import Events
from tests.support.qlogtraces import draft_12, lossy, picoquic, sequential


def write(path: Path, trace: dict[str, Any], events: list[Any], **file: Any) -> Path:
    path.write_text(json.dumps({**file, "traces": [{**trace, "events": events}]}))
    return path


def events_of(path: Path) -> list[Event]:
    return [event for _, event in Events(path)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("transport:packet_sent", "quic:packet_sent"),
        ("TRANSPORT:PACKET_RECEIVED", "quic:packet_received"),
        ("recovery:metrics_updated", "quic:recovery_metrics_updated"),
        ("recovery:parameters_set", "quic:recovery_parameters_set"),
        ("transport:parameters_set", "quic:parameters_set"),
        ("connectivity:connection_closed", "quic:connection_closed"),
        ("security:key_retired", "quic:key_discarded"),
        ("http:frame_parsed", "http3:frame_parsed"),
        ("h3:frame_created", "http3:frame_created"),
        ("http:capsule_parsed", "http:capsule_parsed"),
        ("quic:recovery_metrics_updated", "quic:recovery_metrics_updated"),
        ("quic:path_assigned", "quic:tuple_assigned"),
        ("metric_update:congestion_metric_update", "quic:recovery_metrics_updated"),
        ("loss:packets_lost", "quic:packet_lost"),
        ("mine:own", "mine:own"),
        ("odd", "odd"),
    ],
)
def test_names(old: str, new: str) -> None:
    assert current_name(old) == new


def _shape(event: Event) -> Any:
    """What all dialects of one trace must agree on."""
    data = event.data
    header = data.get("header", {})
    return (
        event.name,
        header.get("packet_type"),
        header.get("packet_number"),
        [
            (frame.get("frame_type"), frame.get("stream_id"), frame.get("offset"),
             (frame.get("raw") or {}).get("payload_length"))
            for frame in data.get("frames", [])
        ],
        data.get("congestion_window"),
        data.get("bytes_in_flight"),
    )  # fmt: skip


def test_three_dialects_of_one_trace_agree(tmp_path: Path) -> None:
    trace = lossy().server
    old = tmp_path / "aioquic.qlog"
    old.write_text(json.dumps(trace))
    new = tmp_path / "quiche.sqlog"
    new.write_bytes(sequential(draft_12(trace)))
    arrays = tmp_path / "picoquic.qlog"
    arrays.write_text(json.dumps(picoquic(trace)))
    first, second, third = (events_of(path) for path in (old, new, arrays))
    assert [_shape(event) for event in first] == [_shape(event) for event in second]
    assert [_shape(event) for event in first] == [_shape(event) for event in third]
    for one, other in zip(first, third, strict=True):
        assert one.time == pytest.approx(other.time, abs=0.01)
        if "smoothed_rtt" in one.data:
            assert one.data["smoothed_rtt"] == pytest.approx(other.data["smoothed_rtt"], abs=0.01)


@pytest.mark.parametrize(
    ("common", "times", "unit"),
    [
        ({}, [1_700_000_000_000.0, 1_700_000_000_005.0, 1_700_000_000_012.5], {}),
        ({"time_format": "absolute"}, [5, 10, 17.5], {}),
        ({"time_format": "relative", "reference_time": 1_700_000_000_000}, [0, 5, 12.5], {}),
        ({"time_format": "delta"}, [100, 5, 7.5], {}),
        ({"time_format": "relative_to_previous_event"}, [0, 5, 7.5], {}),
        ({"time_format": "relative_to_epoch"}, ["3", "8", "15.5"], {}),
        ({}, [1000, 6000, 13500], {"configuration": {"time_units": "us"}}),
    ],
)
def test_clocks(
    tmp_path: Path, common: dict[str, Any], times: list[Any], unit: dict[str, Any]
) -> None:
    items = [{"time": time, "name": "quic:packet_sent", "data": {}} for time in times]
    path = write(tmp_path / "a", {"common_fields": common, **unit}, items, qlog_version="0.3")
    assert [event.time for event in events_of(path)] == [0, 5, 12.5]


def test_when_it_started(tmp_path: Path) -> None:
    def started(common: dict[str, Any], time: float) -> str | None:
        items = [{"time": time, "name": "a:b", "data": {}}]
        events = Events(write(tmp_path / "a", {"common_fields": common}, items))
        list(events)
        at = events.traces[0].started
        return at.astimezone(None).isoformat() if at else None

    absolute = started({}, 1_700_000_000_000)
    assert absolute is not None
    assert started({"time_format": "relative", "reference_time": 1.7e12}, 0) == absolute
    reference = {"clock_type": "monotonic", "epoch": "unknown",
                 "wall_clock_time": "2023-11-14T22:13:20Z"}  # fmt: skip
    assert started({"reference_time": reference}, 0) == absolute
    assert started({"reference_time": {"epoch": "nonsense"}}, 0) is None
    assert started({"time_format": "relative"}, 3) is None


def test_items_that_are_no_events_are_counted(tmp_path: Path) -> None:
    items = [3, None, {"name": "a:b"}, {"time": "x", "name": "a:b", "data": {}},
             {"time": 1, "data": {}}, {"time": True, "name": "a:b", "data": {}},
             {"time": 1, "name": "a:b", "data": {}},
             {"time": 1e14, "name": "a:b", "data": {}}]  # fmt: skip
    events = Events(write(tmp_path / "a", {}, items))
    assert [event.index for _, event in events] == [0]
    assert events.bad_events == 7


def test_members_of_older_drafts(tmp_path: Path) -> None:
    frames = [
        {"frame_type": "connection_close", "error_space": "application", "error_code": 256,
         "raw_error_code": 256},
        {"frame_type": "new_connection_id", "reset_token": "00" * 16, "retire_before": 0,
         "length": 8, "connection_id": "ab", "sequence_number": 1},
        {"frame_type": "crypto", "offset": 0, "length": 7},
    ]  # fmt: skip
    items = [
        {"time": 0, "name": "transport:packet_sent",
         "data": {"packet_type": "1rtt", "header": {"packet_number": "7", "packet_size": 99},
                  "frames": frames}},
        {"time": 0, "name": "recovery:packet_lost", "data": {"type": "1RTT", "packet_number": 5}},
        {"time": 0, "name": "transport:parameters_set",
         "data": {"owner": "remote", "idle_timeout": 3, "stateless_reset_token": {"data": "ff"}}},
        {"time": 0, "name": "transport:version_information",
         "data": {"client_versions": [1], "chosen_version": 0x6B3343CF}},
        {"time": 0, "name": "transport:alpn_information", "data": {"client_alpns": ["h3"]}},
        {"time": 0, "name": "transport:datagram_sent", "data": {"byte_length": 1200}},
        {"time": 0, "name": "http:frame_created",
         "data": {"stream_id": 0, "length": 5, "frame": {"frame_type": "data"}}},
    ]  # fmt: skip
    packet, lost, parameters, version, alpn, datagram, http = (
        event.data for event in events_of(write(tmp_path / "a", {}, items))
    )
    assert packet["header"] == {"packet_type": "1RTT", "packet_number": 7}
    assert packet["raw"] == {"length": 99}
    assert packet["frames"][0]["error"] == "unknown"
    assert packet["frames"][0]["error_code"] == 256
    assert packet["frames"][1]["stateless_reset_token"] == "00" * 16
    assert packet["frames"][1]["retire_prior_to"] == 0
    assert packet["frames"][2]["raw"] == {"payload_length": 7}
    assert lost == {"header": {"packet_type": "1RTT", "packet_number": 5}}
    assert parameters == {"initiator": "remote", "max_idle_timeout": 3,
                          "stateless_reset_token": "ff"}  # fmt: skip
    assert version == {"client_versions": ["00000001"], "chosen_version": "6b3343cf"}
    assert alpn == {"client_alpns": [{"string_value": "h3"}]}
    assert datagram == {"raw": [{"length": 1200}]}
    assert http["frame"] == {"frame_type": "data", "raw": {"payload_length": 5}}


@pytest.mark.parametrize(
    "columns",
    [
        ["relative_time", "category", "event_type", "data"],
        ["RELATIVE_TIME", "CATEGORY", "EVENT_TYPE", "DATA"],
        ["Relative_Time", "Category", "Event", "Trigger", "Data"],
    ],
)
def test_columns_of_older_drafts(tmp_path: Path, columns: list[str]) -> None:
    row = [7, "RECOVERY", "METRICS_UPDATED", {"cwnd": 12000}]
    if len(columns) == 5:
        row.insert(3, "ack")
    (event,) = events_of(write(tmp_path / "a.qlog", {"event_fields": columns}, [row]))
    assert event.name == "quic:recovery_metrics_updated"
    assert event.data["congestion_window"] == 12000
    assert event.data.get("trigger") == ("ack" if len(columns) == 5 else None)


def test_mvfst(tmp_path: Path) -> None:
    trace = {"configuration": {"time_units": "us"}}
    frames = [{"frame_type": "crypto_frame", "length": 288, "offset": 0},
              {"frame_type": "stream", "id": 4, "length": 10, "offset": 20, "fin": True},
              {"frame_type": "rst_stream", "stream_id": 8}]  # fmt: skip
    events = events_of(write(tmp_path / "a.qlog", trace, [
        ["5000", "transport", "packet_sent",
         {"frames": frames, "header": {"packet_number": 3, "packet_size": 1252},
          "packet_type": "INITIAL"}],
        ["6000", "metric_update", "congestion_metric_update",
         {"bytes_in_flight": 1252, "current_cwnd": 12520}],
        ["7000", "loss", "packets_lost",
         {"largest_lost_packet_num": 3, "lost_bytes": 1252, "lost_packets": 1}],
        ["8000", "loss", "packets_lost",
         {"largest_lost_packet_num": 9, "lost_bytes": 2504, "lost_packets": 2}],
    ]))  # fmt: skip
    assert [event.time for event in events] == [0, 1, 2, 3]
    sent, metrics, one, two = (event.data for event in events)
    assert sent["header"] == {"packet_type": "initial", "packet_number": 3}
    assert sent["raw"] == {"length": 1252}
    assert [frame["frame_type"] for frame in sent["frames"]] == ["crypto", "stream", "reset_stream"]
    assert sent["frames"][0]["raw"] == {"payload_length": 288}
    assert sent["frames"][1]["stream_id"] == 4
    assert metrics["congestion_window"] == 12520
    assert one["header"]["packet_number"] == 3
    assert "header" not in two
    assert two["lost_packets"] == 2


@pytest.mark.parametrize("reason", ["Idle timeout", "Handshake timeout"])
def test_a_timeout_of_this_side_is_nobodys_error(tmp_path: Path, reason: str) -> None:
    """Our earlier traces had it as an internal error of the peer."""
    data = {"initiator": "remote", "connection_error": "internal_error", "error_code": 1,
            "reason": reason}  # fmt: skip
    if reason == "Idle timeout":
        data["trigger"] = "idle_timeout"
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential([{"time": 1, "name": "quic:connection_closed", "data": data}]))
    (event,) = events_of(path)
    assert event.data["initiator"] == "local"
    assert not {"connection_error", "error_code"} & event.data.keys()
    assert event.data["reason"] == reason
