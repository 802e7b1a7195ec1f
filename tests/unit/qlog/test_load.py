"""Reading files: formats, damage, limits."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quicedge.config.tracelimits import QLOG_MAX_EVENT
from quicedge.qlog.analyse import analyse
from quicedge.qlog.load import Reader, Shape, shape_of
from quicedge.qlog.normalise import Events
from quicedge.qlog.show import as_json, line
from quicedge.qlog.stats import page as stats_page
from quicedge.qlog.validate import validate
from tests.support.qlogtraces import draft_12, lossy, picoquic, sequential, transfer


def read(path: Path) -> tuple[Reader, list[Any]]:
    reader = Reader(path)
    return reader, [raw for _, raw in reader]


@pytest.fixture
def contained() -> bytes:
    return json.dumps(transfer(sizes=(5000,), loss=0).server).encode()


@pytest.fixture
def records() -> list[dict[str, Any]]:
    return draft_12(transfer(sizes=(5000,), loss=0).server)


def test_contained_yields_every_event(tmp_path: Path) -> None:
    trace = lossy().server
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(trace))
    reader, events = read(path)
    assert reader.shape == "JSON"
    assert events == trace["traces"][0]["events"]
    assert reader.parse_errors.count == 0
    assert reader.headers[0].vantage == "server"
    assert reader.headers[0].implementation == "aioquic"


def test_indented_json_and_members_after_the_events(tmp_path: Path) -> None:
    trace = transfer(sizes=(5000,), loss=0).server
    body = trace["traces"][0]
    trace = {"traces": [{"events": body["events"], "vantage_point": {"type": "network",
             "flow": "server"}}], "qlog_version": "0.3"}  # fmt: skip
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(trace, indent=2))
    reader, events = read(path)
    assert events == body["events"]
    assert reader.headers[0].vantage == "server"
    assert reader.headers[0].file["qlog_version"] == "0.3"


@pytest.mark.parametrize(("separator", "shape"), [(b"\x1e", "JSON-SEQ"), (b"", "NDJSON")])
def test_sequences(
    tmp_path: Path, records: list[dict[str, Any]], separator: bytes, shape: str
) -> None:
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential(records, separator))
    reader, events = read(path)
    assert reader.shape == shape
    assert events == records[1:]
    assert reader.headers[0].version == "quic-12"
    assert reader.headers[0].implementation == "quiche"


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_records_that_merely_follow_each_other(
    tmp_path: Path, records: list[dict[str, Any]], indent: int | None, mark: bytes
) -> None:
    text = "\n".join(json.dumps(record, indent=indent) for record in records)
    path = tmp_path / "a.qlog"
    path.write_bytes(mark + text.encode())
    reader, events = read(path)
    assert reader.shape is (Shape.LINES if indent is None else Shape.CONCATENATED)
    assert events == records[1:]
    assert reader.parse_errors.count == 0
    assert len(reader.headers) == 1


def test_records_on_one_line(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "a.qlog"
    path.write_text("".join(json.dumps(record) for record in records))
    assert read(path)[1] == records[1:]


def test_a_version_behind_the_traces_is_known_with_the_first_event(tmp_path: Path) -> None:
    whole = {"traces": [{"title": "none"}, {}, *lossy().server["traces"]], "qlog_version": "0.3"}
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(whole))
    reader = Reader(path)
    versions = {header.version for header, _ in reader}
    assert versions == {"0.3"}
    assert reader.parse_errors.count == 0


def test_goes_on_after_a_damaged_pretty_printed_record(
    tmp_path: Path, records: list[dict[str, Any]]
) -> None:
    parts = [json.dumps(record, indent=1) for record in records]
    parts[4] = parts[4].replace(":", ";", 1)
    path = tmp_path / "a.qlog"
    path.write_text("\n".join(parts))
    reader, events = read(path)
    assert events == records[1:4] + records[5:]
    assert reader.parse_errors.count == 1
    assert reader.parse_errors.places[0].record == 4


@pytest.mark.parametrize("separator", [b"\x1e", b""])
def test_the_end_of_a_trace_without_its_beginning(
    tmp_path: Path, records: list[dict[str, Any]], separator: bytes
) -> None:
    whole = sequential(records, separator)
    path = tmp_path / "tail.sqlog"
    path.write_bytes(b"27a3" + whole[whole.index(b"frames") :])
    reader, events = read(path)
    assert len(events) > len(records) - 10
    assert events == records[-len(events) :]
    assert reader.parse_errors.count == 2  # the record cut off, and that there is no header


def test_a_byte_order_mark_is_no_damage(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    for content in (sequential(records), json.dumps(lossy().server).encode()):
        path = tmp_path / "a.qlog"
        path.write_bytes(b"\xef\xbb\xbf" + content)
        reader, events = read(path)
        assert events
        assert reader.parse_errors.count == 0


@pytest.mark.parametrize("late", ["configuration", "event_fields", "vantage_point"])
def test_what_stands_behind_the_events_is_known_with_the_first(tmp_path: Path, late: str) -> None:
    """Clock, columns and side decide how events are read, wherever the file has them."""
    whole = picoquic(lossy().server)
    trace = whole["traces"][0]
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(whole))
    expected = [event for _, event in Events(path)]
    trace[late] = trace.pop(late)
    for text in (json.dumps(whole).encode(), gzip.compress(json.dumps(whole, indent=1).encode())):
        path.write_bytes(text)
        found = [(trace.header.vantage, event) for trace, event in Events(path)]
        assert found == [("server", event) for event in expected]


def test_gzip_and_its_truncation(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    whole = gzip.compress(sequential(records))
    path = tmp_path / "a.sqlog.gz"
    path.write_bytes(whole)
    assert read(path)[1] == records[1:]
    path.write_bytes(whole[: len(whole) // 2])
    reader, events = read(path)
    assert 0 < len(events) < len(records) - 1
    assert events == records[1 : 1 + len(events)]
    assert reader.parse_errors.count


def test_several_traces_and_a_trace_error(tmp_path: Path) -> None:
    done = transfer(sizes=(5000,), loss=0)
    error = {"error_description": "file could not be found", "uri": "x"}
    both = {"qlog_version": "0.3", "traces": [done.client["traces"][0], error,
            done.server["traces"][0]]}  # fmt: skip
    path = tmp_path / "a.qlog"
    path.write_text(json.dumps(both))
    analysis = analyse(path)
    assert [one.vantage for one in analysis.connections] == ["client", "server"]
    assert analysis.trace_errors == ["file could not be found"]


def test_two_sequences_one_after_the_other(tmp_path: Path) -> None:
    done = transfer(sizes=(5000,), loss=0)
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential(draft_12(done.client)) + sequential(draft_12(done.server)))
    assert [one.vantage for one in analyse(path).connections] == ["client", "server"]


def test_truncated_contained_says_where(tmp_path: Path, contained: bytes) -> None:
    path = tmp_path / "a.qlog"
    cut = len(contained) * 2 // 3
    path.write_bytes(contained[:cut])
    reader, events = read(path)
    assert 10 < len(events) < len(json.loads(contained)["traces"][0]["events"])
    (place,) = reader.parse_errors.places
    assert cut - 2000 < place.offset <= cut
    assert place.record == len(events)
    assert "ends" in place.reason


def test_goes_on_after_a_damaged_event(tmp_path: Path, contained: bytes) -> None:
    events = json.loads(contained)["traces"][0]["events"]
    start = contained.index(json.dumps(events[20]).encode())
    damaged = bytearray(contained)
    damaged[start + 9] = 0
    path = tmp_path / "a.qlog"
    path.write_bytes(damaged)
    reader, found = read(path)
    assert found == events[:20] + events[21:]
    (place,) = reader.parse_errors.places
    assert (place.offset, place.record) == (start + 9, 20)


def test_damaged_record_is_skipped(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    lines = [b"\x1e" + json.dumps(record).encode() + b"\n" for record in records]
    lines[5] = b'\x1e{"time": 1, "name": oops}\n'
    path = tmp_path / "a.sqlog"
    path.write_bytes(b"".join(lines))
    reader, found = read(path)
    assert found == records[1:5] + records[6:]
    (place,) = reader.parse_errors.places
    assert (place.offset, place.record) == (len(b"".join(lines[:5])) + 21, 5)


def test_lost_separator_loses_nothing(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    whole = sequential(records)
    at = whole.index(b"\x1e", 5000)
    path = tmp_path / "a.sqlog"
    path.write_bytes(whole[:at] + whole[at + 1 :])
    reader, found = read(path)
    assert found == records[1:]
    assert reader.parse_errors.count == 1


def test_text_that_is_not_ascii(tmp_path: Path) -> None:
    event = {"time": 1, "name": "loglevel:info", "data": {"message": "Grüße, 世界 😀"}}
    path = tmp_path / "a.qlog"
    trace = {"qlog_version": "0.3", "traces": [{"events": [event]}]}
    path.write_text(json.dumps(trace, ensure_ascii=False), encoding="utf-8")
    assert read(path)[1] == [event]


def test_an_event_beyond_the_limit_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlog"
    with path.open("wb") as file:
        file.write(b'\x1e{"qlog_version":"0.3","trace":{}}\n')
        long = b"a" * (QLOG_MAX_EVENT + 1_000_000)
        file.write(b'\x1e{"time":1,"name":"x","data":"' + long + b'"}\n')
        file.write(b'\x1e{"time":2,"name":"quic:packet_sent","data":{}}\n')
    reader, events = read(path)
    assert [event["time"] for event in events] == [2]
    assert "longer" in reader.parse_errors.places[0].reason


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"not json", b"[]", b"{}", b"null", b'{"traces":[]}', b'{"traces":3}',
     b'{"traces":[{"events":[]}]}', b"[" * 100_000, b'{"traces":[{"events":[' + b"[" * 100_000,
     b"\x1e" * 100, b"\x1f\x8b", b"\x1f\x8b\x08\x00junk", b'\xff\xfe{"a"',
     b'{"events":[1,null,"x"]}',
     b'{"qlog_version":"0.3","trace":{}}\n{"time":1e999,"name":"a","data":{}}\n'],
)  # fmt: skip
def test_what_is_no_trace_never_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    analysis = analyse(path)
    assert analysis.parse_errors.count or not analysis.connections or analysis.bad_events
    validate(path)


def test_shapes() -> None:
    assert shape_of(b'\x1e{"qlog_version"') == "JSON-SEQ"
    assert shape_of(b'{"qlog_version":"0.3"}\n{"time":1}') == "NDJSON"
    assert shape_of(b'{"qlog_version":"0.3"}\n\x1e{"time":1}') == "JSON-SEQ"
    assert shape_of(b'{"traces":[{"events":[') == "JSON"
    assert shape_of(b'\xef\xbb\xbf{\n  "traces": [') == "JSON"


_SMALL = transfer(sizes=(4000,), loss=0)
_BASES = [
    json.dumps(_SMALL.server).encode(),
    sequential(draft_12(_SMALL.client)),
    json.dumps(picoquic(_SMALL.server)).encode(),
]


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    base=st.sampled_from(_BASES),
    cut=st.floats(0, 1),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=8),
    remove=st.booleans(),
)
def test_any_truncation_or_corruption_is_survived_and_reported(
    tmp_path: Path, base: bytes, cut: float, edits: list[tuple[float, bytes]], remove: bool
) -> None:
    content = bytearray(base[: int(len(base) * cut)])
    for place, piece in edits:
        at = int(len(content) * place)
        content[at : at + (len(piece) if not remove else 2 * len(piece))] = piece
    path = tmp_path / "damaged"
    path.write_bytes(content)
    analysis = analyse(path)
    for connection in analysis.connections:
        stats_page(analysis, connection)
    try:
        json.loads(content)
        sound = True
    except (ValueError, RecursionError):
        # A sequence is sound where each of its records is.
        sound = base is _BASES[1]
    if not sound:
        assert analysis.parse_errors.count
        assert all(0 <= place.offset <= len(content) for place in analysis.parse_errors.places)
    validate(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["header", "frames", "frame", "raw", "length", "packet_number", "packet_type",
             "frame_type", "stream_id", "offset", "acked_ranges", "fin", "headers", "name", "value",
             "new", "old", "initiator", "maximum", "latest_rtt", "smoothed_rtt", "pto_count",
             "congestion_window", "bytes_in_flight", "error_code", "reason", "token", "ce",
             "lost_packets", "largest_lost_packet_num", "header", "packet_number", "version"]
        ), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip
_FRAME_TYPES = st.sampled_from(
    ["stream", "ack", "crypto", "max_data", "max_stream_data", "stream_data_blocked",
     "connection_close", "reset_stream", "new_token", "new_connection_id", "padding", "STREAM"]
)  # fmt: skip
_NAMES = st.sampled_from(
    ["transport:packet_sent", "quic:packet_received", "recovery:packet_lost",
     "recovery:metrics_updated", "quic:parameters_set", "http:frame_parsed",
     "quic:connection_closed", "quic:stream_data_blocked_updated", "transport:datagrams_sent",
     "quic:version_information", "quic:alpn_information", "http:stream_type_set",
     "loss:packets_lost", "quic:connection_data_blocked_updated", "loglevel:warning"]
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    items=st.lists(
        st.tuples(_NAMES, _JSON, st.lists(st.tuples(_FRAME_TYPES, _JSON), max_size=2), _JSON),
        max_size=12,
    )
)
def test_members_of_any_type_are_survived(tmp_path: Path, items: list[Any]) -> None:
    events = []
    for index, (name, data, frames, time) in enumerate(items):
        if isinstance(data, dict):
            data["frames"] = [
                {**(frame if isinstance(frame, dict) else {"x": frame}), "frame_type": kind}
                for kind, frame in frames
            ]
        events.append({"time": index if index % 3 else time, "name": name, "data": data})
    path = tmp_path / "odd.sqlog"
    path.write_bytes(sequential([{"qlog_version": "0.3", "trace": {}}, *events]))
    analysis = analyse(path)
    for connection in analysis.connections:
        stats_page(analysis, connection)
    validate(path)
    from quicedge.qlog.normalise import Events

    for _, event in Events(path):
        assert line(event).isprintable() or "\x1b" in line(event)
        json.loads(as_json(event))
