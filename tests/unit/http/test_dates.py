"""HTTP dates: parsing of three formats, generation of one."""

from __future__ import annotations

import calendar
import datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quicedge.http.conditional import Validators, select
from quicedge.http.dates import CurrentDate, format_date, parse_date

NOW = 1_795_000_000.0
"""In 2026."""
THEN = 784_111_777
FORMATS = (
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
)


@pytest.mark.parametrize("value", FORMATS)
def test_all_three_formats_name_one_moment(value: bytes) -> None:
    assert parse_date(value, NOW) == THEN


@pytest.mark.parametrize("value", FORMATS)
@pytest.mark.parametrize("name", [b"if-modified-since", b"if-unmodified-since", b"if-range"])
def test_conditions_are_evaluated_in_every_format(name: bytes, value: bytes) -> None:
    def status(modified: int) -> int:
        fields = [(name, value), (b"range", b"bytes=0-0")]
        return select(b"GET", fields, Validators(b'"a"', modified, 10), NOW).status

    expected = {
        b"if-modified-since": (304, 206),
        b"if-unmodified-since": (206, 412),
        b"if-range": (206, 200),
    }[name]
    assert (status(THEN), status(THEN + 1)) == expected


@pytest.mark.parametrize(
    ("year", "meant"), [(b"26", 2026), (b"76", 2076), (b"77", 1977), (b"99", 1999), (b"00", 2000)]
)
def test_a_year_of_two_digits_is_at_most_fifty_years_ahead(year: bytes, meant: int) -> None:
    found = parse_date(b"Monday, 01-Jan-" + year + b" 00:00:00 GMT", NOW)
    assert found is not None
    assert format_date(found).split()[3] == str(meant).encode()


def test_a_leap_second_is_a_date() -> None:
    assert parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) is not None


@pytest.mark.parametrize(
    "value",
    [b"", b"0", b"now", b"Sun, 06 Nov 1994 08:49:37", b"Sun, 06 Nov 1994 08:49:37 CET",
     b"Sun, 31 Feb 1994 08:49:37 GMT", b"Sun, 06 Nov 1994 24:00:00 GMT",
     b"Sun, 06 Foo 1994 08:49:37 GMT", b"Sun, 06 Nov 0000 08:49:37 GMT",
     b"Sunday, 06-Nov-1994 08:49:37 GMT", b"Sun Nov 6 08:49:37 1994", FORMATS[0] + b" "],
)  # fmt: skip
def test_what_is_no_date_is_ignored(value: bytes) -> None:
    assert parse_date(value, NOW) is None


@given(st.integers(-62135596800, 253402300799))
def test_what_is_written_is_read(seconds: int) -> None:
    assert parse_date(format_date(seconds), NOW) == seconds
    assert format_date(seconds) == formatdate(seconds, usegmt=True).encode()


@given(st.dates(), st.integers(0, 32))
def test_days_exist_as_in_the_calendar(date: datetime.date, day: int) -> None:
    exists = 1 <= day <= calendar.monthrange(date.year, date.month)[1]
    value = f"Sun, {day:02} {date:%b} {date.year:04} 00:00:00 GMT".encode()
    assert (parse_date(value, NOW) is not None) == exists


@given(st.binary(max_size=40))
def test_any_octets_are_a_date_or_none(value: bytes) -> None:
    parse_date(value, NOW)


def test_the_present_date_follows_its_clock() -> None:
    now = THEN + 0.9
    date = CurrentDate(lambda: now)
    assert date() == FORMATS[0]
    now = THEN + 1.0
    assert date() == b"Sun, 06 Nov 1994 08:49:38 GMT"
