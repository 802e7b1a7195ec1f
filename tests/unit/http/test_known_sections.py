"""Field sections that come again are not decoded again, and mean the same to every request."""

from __future__ import annotations

import pylsqpack
import pytest

from quicedge.config.limits import H3_REMEMBERED_SECTION, H3_SECTIONS_REMEMBERED
from quicedge.http import known_sections
from quicedge.http.frames import FrameType, encode_frame, encode_varint
from quicedge.http.known_sections import KnownSection, KnownSections
from quicedge.http.message import Fields
from quicedge.http.validation import MessageError, MessageLimits
from tests.unit.http.test_h3 import GET, SETTINGS, Wire


def encoded(fields: Fields) -> bytes:
    return bytes(pylsqpack.Encoder().encode(0, fields)[1])


def known(sections: KnownSections, fields: Fields) -> KnownSection:
    block = encoded(fields)
    for _ in range(2):
        sections.note(block, fields)
    found = sections.get(block)
    assert found is not None
    return found


def test_a_section_is_remembered_from_the_second_time_on() -> None:
    wire = Wire()
    frame = encode_frame(FrameType.HEADERS, encoded(GET))
    sections = []
    for number in range(4):
        wire.h3.stream_data(4 * number, frame, True)
        name, stream_id, fields, ended = wire.told[2 * number]
        assert (name, stream_id, fields, ended) == ("on_headers", 4 * number, GET, True)
        sections.append(fields)
    assert [isinstance(fields, KnownSection) for fields in sections] == [False, True, True, True]
    assert sections[1] is sections[2] is sections[3]


def test_a_section_that_depends_on_the_dynamic_table_is_not_remembered() -> None:
    wire = Wire(qpack_max_table_capacity=4096, qpack_blocked_streams=4)
    encoder = pylsqpack.Encoder()
    instructions = encoder.apply_settings(max_table_capacity=4096, blocked_streams=4)
    wire.h3.stream_data(2, encode_varint(0) + SETTINGS, False)
    wire.h3.stream_data(6, encode_varint(2) + instructions, False)
    dynamic = 0
    for number in range(6):
        more, block = encoder.encode(4 * number, [*GET, (b"x-field", b"in the dynamic table")])
        wire.h3.stream_data(6, more, False)
        wire.h3.stream_data(4 * number, encode_frame(FrameType.HEADERS, block), True)
        fields = wire.told[2 * number][2]
        assert fields == [*GET, (b"x-field", b"in the dynamic table")]
        dynamic += bool(block[0])
        assert not (block[0] and isinstance(fields, KnownSection))
    assert dynamic > 2


def test_what_is_remembered_is_bounded() -> None:
    sections = KnownSections()
    for number in range(2 * H3_SECTIONS_REMEMBERED + 10):
        known(sections, [*GET, (b"x", b"%d" % number)])
    assert 0 < len(sections) <= H3_SECTIONS_REMEMBERED
    long = [*GET, (b"x", b"#" * (H3_REMEMBERED_SECTION + 1))]
    for _ in range(2):
        assert sections.note(encoded(long), long) is long
    assert sections.get(encoded(long)) is None


def test_requests_of_one_section_do_not_share_what_may_change() -> None:
    section = known(KnownSections(), [*GET, (b"accept", b"*/*")])
    limits = MessageLimits()
    first, second = section.as_request(limits), section.as_request(limits)
    assert first == second
    first.ended = True
    first.fields.append((b"x", b"y"))
    assert second.fields == section.as_request(limits).fields == [(b"accept", b"*/*")]
    assert not section.as_request(limits).ended


def test_a_remembered_section_is_validated_once_for_each_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validated: list[MessageLimits] = []
    validate = known_sections.validate_request

    def counting(section: Fields, limits: MessageLimits, **options: bool) -> object:
        validated.append(limits)
        return validate(section, limits, **options)

    monkeypatch.setattr(known_sections, "validate_request", counting)
    section = known(KnownSections(), GET)
    before, after = MessageLimits(), MessageLimits()
    for limits in (before, before, after, after):
        section.as_request(limits)
    assert validated == [before, after]


def test_a_malformed_section_is_refused_each_time() -> None:
    section = known(KnownSections(), [*GET, (b"connection", b"close")])
    for _ in range(2):
        with pytest.raises(MessageError):
            section.as_request(MessageLimits())


def test_a_remembered_section_is_still_measured_by_the_limits_of_its_connection() -> None:
    sections = KnownSections()
    fields = [*GET, (b"x", b"y" * 200)]
    known(sections, fields)
    wire = Wire(max_field_section_size=300)
    wire.h3._sections = sections
    wire.h3.stream_data(0, encode_frame(FrameType.HEADERS, encoded(fields)), True)
    assert wire.told == [("on_field_section_too_large", 0, fields)]
