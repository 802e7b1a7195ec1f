"""The drafts' definitions as data, and validation of traces against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.config.tracelimits import QLOG_MAX_NUMBER_RANGES
from quicedge.qlog.consistency import NumberSet
from quicedge.qlog.definitions import BUILTIN, Severity, check, events, types
from quicedge.qlog.validate import Validation, validate
from tests.support.qlogtraces import draft_12, lossy, sequential


def _references(kind: Any) -> list[str]:
    if isinstance(kind, str):
        return [kind]
    found = [name for part in kind.get("any", []) for name in _references(part)]
    for member in kind.get("object", {}).values():
        found += _references(member)
    found += _references(kind["list"]) if "list" in kind else []
    found += [kind["extends"]] if "extends" in kind else []
    return found + list(kind.get("variants", {}).values())


def test_every_type_named_is_defined() -> None:
    known = {*types(), *BUILTIN}
    for name, kind in types().items():
        assert set(_references(kind)) <= known, name
    for name, event in events().items():
        assert event["data"] in known, name
        assert event["importance"] in ("core", "base", "extra")


def test_core_events_are_those_of_the_drafts() -> None:
    core = {name for name, event in events().items() if event["importance"] == "core"}
    assert core == {
        "quic:version_information", "quic:alpn_information", "quic:parameters_set",
        "quic:packet_sent", "quic:packet_received", "quic:recovery_metrics_updated",
        "quic:packet_lost", "http3:frame_created", "http3:frame_parsed", "http:capsule_created",
        "http:capsule_parsed", "loglevel:error",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        (3, "uint8", None),
        (256, "uint8", "uint8"),
        (-1, "uint64", "negative"),
        (True, "uint64", "bool"),
        (1.5, "uint32", "fraction"),
        (1, "float32", None),
        ("abcd", "hexstring", None),
        ("abc", "hexstring", "hexstring"),
        ("1RTT", "PacketType", None),
        ({"packet_type": "1RTT", "packet_number": 3}, "PacketHeader", None),
        ({"cwnd": 5}, "QUICRecoveryMetricsUpdated", "a name of older drafts"),
        ({"frame_type": "stream", "stream_id": 0, "length": 5}, "QuicFrame", "'length'"),
        ("ABCD", "hexstring", "'ABCD' in upper case"),
        ({"packet_number": 3}, "PacketHeader", "lacks the member 'packet_type'"),
        ([[1], [3, 5]], {"list": "AckRange", "min": 1}, None),
        ([1, 2, 3], "AckRange", "3 items"),
        ({"frame_type": "crypto", "offset": 0}, "QuicFrame", "lacks the member 'raw'"),
        ({"offset": 0}, "QuicFrame", "lacks the member 'frame_type'"),
        ("crypto_error_0x12a", "CryptoError", None),
        ("crypto_error_0x22a", "CryptoError", "match"),
        ("00" * 16, "StatelessResetToken", None),
        ("00", "StatelessResetToken", "16 bytes"),
        ({"new": "blocked", "reason": 5}, "QUICConnectionDataBlockedUpdated", "not text"),
        (None, "RawInfo", "null"),
    ],
)
def test_types(value: Any, kind: Any, problem: str | None) -> None:
    found = check(value, kind, "x")
    if problem is None:
        assert found == []
    else:
        (one,) = found
        assert one.severity is Severity.ERROR
        assert problem in one.what


def test_extension_points_are_notes() -> None:
    for value, kind in (
        ("mine", "PacketType"),
        ({"frame_type": "ack_frequency"}, "QuicFrame"),
        ({"new": "my_own_state"}, "QUICConnectionStateUpdated"),
        ({"packet_type": "1RTT", "mine": 1}, "PacketHeader"),
        ({"frame_type": "ping", "mine": {}}, "QuicFrame"),
    ):
        assert [one.severity for one in check(value, kind, "")] == [Severity.NOTE]


def found(result: Validation, level: str) -> set[tuple[str, str]]:
    return {(one.event, one.what) for one in result.findings.values() if one.level == level}


def test_a_trace_of_draft_12_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential(draft_12(lossy().client)))
    result = validate(path)
    assert result.errors == 0
    assert not result.translated
    assert result.version == "quic-12"
    assert sum(result.importance.values()) == result.events
    assert result.importance["core"] > 100


def test_an_old_trace_is_translated_first(tmp_path: Path) -> None:
    client, _ = lossy().write(tmp_path)
    result = validate(client)
    assert result.translated
    assert result.errors == 0


def test_what_breaks_the_definitions(tmp_path: Path) -> None:
    records = draft_12(lossy().client)[:1]
    trace = records[0]["trace"]
    trace["event_schemas"] = ["urn:ietf:params:qlog:events:quic-12",
                              "urn:ietf:params:qlog:events:http3"]  # fmt: skip
    records[0]["serialization_format"] = "application/qlog+json"
    records += [
        {"time": 1, "name": "quic:packet_sent", "data": {"header": {"packet_number": 1}}},
        {"time": 2, "name": "quic:packet_sent", "data": {"header": {"packet_number": 2}}},
        {"time": "3", "name": "quic:packet_sent", "data": {"header": {"packet_type": "1RTT"}}},
        {"time": 2, "name": "quic:mine", "data": {}},
        {"time": 4, "name": "transport:packet_sent", "data": {}},
        {"time": 5, "name": "quic:packet_lost"},
    ]
    path = tmp_path / "a.sqlog"
    path.write_bytes(sequential(records))
    result = validate(path)
    errors = found(result, "error")
    assert ("quic:packet_sent", "data.header lacks the member 'packet_type'") in errors
    assert ("quic:packet_sent", "time is text, not float64") in errors
    assert ("quic:packet_lost", "lacks the member 'data'") in errors
    older = ("transport:packet_sent", "is the name that older drafts had for quic:packet_sent")
    assert older in errors
    assert any("serialization_format" in what for _, what in errors)
    assert any("lacks the draft's number" in what for _, what in errors)
    assert found(result, "note") == {
        ("file", "events are not in the order of their times"),
        ("quic:mine", "is not an event of the drafts"),
    }
    twice = result.findings["quic:packet_sent", "data.header lacks the member 'packet_type'"]
    assert (twice.count, twice.first) == (2, 0)


def test_a_broken_file_does_not_conform(tmp_path: Path) -> None:
    whole = json.dumps(lossy().client)
    path = tmp_path / "a.qlog"
    path.write_text(whole[: len(whole) // 2])
    assert validate(path).errors == 1


def packet(way: str, number: int, *acked: list[int], kind: str = "1RTT") -> dict[str, Any]:
    frames: list[dict[str, Any]] = [{"frame_type": "ping"}]
    if acked:
        frames = [{"frame_type": "ack", "acked_ranges": list(acked)}]
    header = {"packet_type": kind, "packet_number": number}
    return {"time": 1, "name": f"quic:packet_{way}", "data": {"header": header, "frames": frames}}


def warning(message: str) -> dict[str, Any]:
    return {"time": 1, "name": "loglevel:warning", "data": {"message": message}}


def validated(directory: Path, *events: dict[str, Any]) -> Validation:
    header = draft_12(lossy().client)[0]
    header["trace"]["event_schemas"] = ["urn:ietf:params:qlog:events:quic-13",
                                        "urn:ietf:params:qlog:events:loglevel-14"]  # fmt: skip
    path = directory / "a.sqlog"
    path.write_bytes(sequential([header, *events]))
    return validate(path)


def errors(result: Validation) -> list[str]:
    return [what for _, what in sorted(found(result, "error"))]


def test_a_packet_number_sent_or_received_twice_is_an_error(tmp_path: Path) -> None:
    result = validated(
        tmp_path, packet("sent", 0, kind="initial"), packet("sent", 0),
        packet("received", 0), packet("sent", 1), packet("sent", 0), packet("received", 0),
    )  # fmt: skip
    assert errors(result) == [
        "a packet number of the application_data space is received twice",
        "a packet number of the application_data space is sent twice",
    ]


def test_an_acknowledgement_of_what_never_was_is_an_error(tmp_path: Path) -> None:
    result = validated(
        tmp_path, packet("sent", 0, kind="initial"), packet("received", 0, [0], kind="initial"),
        packet("sent", 1, [0, 1], kind="initial"), packet("sent", 4), packet("sent", 6),
        packet("received", 1, [4], [6]), packet("received", 2, [4, 6]),
    )  # fmt: skip
    assert errors(result) == [
        "acknowledges a packet of the application_data space that was never sent",
        "acknowledges a packet of the initial space that was never received",
    ]
    assert {one.example for one in result.findings.values()} == {"packet 5", "packet 1"}


def test_a_reversed_range_is_an_error(tmp_path: Path) -> None:
    result = validated(
        tmp_path, packet("sent", 3), packet("sent", 4), packet("received", 0, [4, 3])
    )
    assert errors(result) == ["data.frames[](ack).acked_ranges has a reversed range"]


def test_a_trace_begun_in_mid_connection_may_acknowledge_what_came_before(tmp_path: Path) -> None:
    result = validated(
        tmp_path, packet("received", 625, [1996, 2014]), packet("sent", 2021, [600, 625]),
        packet("received", 626, [1996, 2021]), packet("received", 627, [2022]),
    )  # fmt: skip
    assert errors(result) == [
        "acknowledges a packet of the application_data space that was never sent"
    ]
    assert [one.example for one in result.findings.values()] == ["packet 2022"]


def test_a_trace_that_lost_events_may_acknowledge_what_it_lacks(tmp_path: Path) -> None:
    events = [packet("sent", 3), packet("received", 0, [3, 9])]
    assert len(errors(validated(tmp_path, *events))) == 1
    assert errors(validated(tmp_path, *events, warning("6 events lost: disk too slow"))) == []


def test_a_file_of_unknown_events_does_not_conform(tmp_path: Path) -> None:
    result = validated(tmp_path, {"time": 1, "name": "mine:thing", "data": {}})
    assert errors(result) == ["has no event of the drafts: nothing could be compared"]
    assert not result.conforms
    mixed = validated(tmp_path, packet("sent", 0), {"time": 1, "name": "mine:thing", "data": {}})
    assert (mixed.errors, mixed.conforms) == (0, False)
    assert validated(tmp_path, packet("sent", 0)).conforms


def test_packet_numbers_remembered_are_bounded(tmp_path: Path) -> None:
    numbers = NumberSet()
    for number in range(0, 4 * QLOG_MAX_NUMBER_RANGES, 2):
        assert numbers.add(number)
    assert numbers.floor == 2 * QLOG_MAX_NUMBER_RANGES
    assert numbers.lacks(0, 0) is None  # forgotten, so not judged
    assert numbers.lacks(4 * QLOG_MAX_NUMBER_RANGES - 3, 4 * QLOG_MAX_NUMBER_RANGES - 3) is not None


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 45), st.integers(0, 45))
def test_packet_numbers_against_a_plain_set(added: list[int], first: int, last: int) -> None:
    numbers, plain = NumberSet(), set[int]()
    for number in added:
        assert numbers.add(number) is (number not in plain)
        plain.add(number)
    floor = added[0] if added else 0
    expected = [n for n in range(max(first, floor), last + 1) if n not in plain]
    missing = numbers.lacks(first, last)
    assert (missing is None) is (not expected)
    assert missing is None or missing in expected
