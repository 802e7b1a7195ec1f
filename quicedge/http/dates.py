"""HTTP dates: parses three formats and generates one (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from email.utils import formatdate

# IMF-fixdate  = day-name "," SP date1 SP time-of-day SP GMT     ; Sun, 06 Nov 1994 08:49:37 GMT
# rfc850-date  = day-name-l "," SP date2 SP time-of-day SP GMT   ; Sunday, 06-Nov-94 08:49:37 GMT
# asctime-date = day-name SP date3 SP time-of-day SP year        ; Sun Nov  6 08:49:37 1994
_TIME = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMATS = (
    re.compile(
        rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), "
        rb"(?P<day>[0-9]{2}) (?P<month>[A-Z][a-z]{2}) (?P<year>[0-9]{4}) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, "
        rb"(?P<day>[0-9]{2})-(?P<month>[A-Z][a-z]{2})-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"
    ),
    re.compile(
        rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) "
        rb"(?P<month>[A-Z][a-z]{2}) (?P<day>[0-9 ][0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"
    ),
)
_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun",
         b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
        start=1,
    )
}  # fmt: skip


def format_date(seconds: float) -> bytes:
    """Seconds since 1970 as an IMF-fixdate."""
    return formatdate(int(seconds), usegmt=True).encode()


def parse_date(value: bytes, now: float) -> int | None:
    """Parse a date in any of the three formats to seconds since 1970; None if it is invalid.

    `now` determines the century of two-digit years.
    """
    for form in _FORMATS:
        match = form.fullmatch(value)
        if match is not None:
            return _seconds(match, now)
    return None


def _seconds(match: re.Match[bytes], now: float) -> int | None:
    month = _MONTHS.get(match["month"])
    if month is None:
        return None
    year = int(match["year"])
    if len(match["year"]) == 2:
        # RFC 9110 section 5.6.7: a date that appears to be more than 50 years in the future MUST
        # be interpreted as the most recent year in the past that had the same last two digits.
        this_year = int(format_date(now).split()[3])
        year += this_year - this_year % 100
        if year > this_year + 50:
            year -= 100
    day, hour, minute = int(match["day"]), int(match["hour"]), int(match["minute"])
    # A leap second counts as the last second of its minute.
    second = 59 if match["second"] == b"60" else int(match["second"])
    if year < 1 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


class CurrentDate:
    """The current `Date` value, formatted once per second. `clock` returns seconds since 1970."""

    __slots__ = ("_clock", "_second", "_value")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._second = -1
        self._value = b""

    def __call__(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._value = format_date(second)
        return self._value
