"""HTTP dates: parses three formats and generates one (RFC 9110 section 5.6.7)."""

from __future__ import annotations

import re
from collections.abc import Callable

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
_DAY = 86400
_CYCLE = 146_097
"""Days of 400 years."""
_EPOCH = 719_468
"""Days from March 1st of the year 0 to 1970."""
_DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun",
                "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")  # fmt: skip
_MONTHS = {name.encode(): number for number, name in enumerate(_MONTH_NAMES, start=1)}


def format_date(seconds: float) -> bytes:
    """Seconds since 1970 as an IMF-fixdate."""
    days, second = divmod(int(seconds), _DAY)
    year, month, day = _date(days)
    weekday = _DAY_NAMES[(days + 3) % 7]  # 1970 began on a Thursday
    hour, minute = second // 3600, second // 60 % 60
    return (
        f"{weekday}, {day:02} {_MONTH_NAMES[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second % 60:02} GMT"
    ).encode()


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
    days = _days(year, month, day)
    if year < 1 or _date(days) != (year, month, day):
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    return days * _DAY + hour * 3600 + minute * 60 + second


# Years are counted from March, so that a leap day is the last of its year, and days in cycles of
# 400 years; the months from March on begin after (153 * month + 2) // 5 days. `calendar` would do,
# but costs every process a tenth of a megabyte.


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970 of a date; of one that does not exist, those of another one."""
    cycle, year = divmod(year - (month < 3), 400)
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return cycle * _CYCLE + year * 365 + year // 4 - year // 100 + of_year - _EPOCH


def _date(days: int) -> tuple[int, int, int]:
    """Year, month and day."""
    cycle, days = divmod(days + _EPOCH, _CYCLE)
    year = (days - days // 1460 + days // 36524 - days // 146096) // 365
    of_year = days - (year * 365 + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return cycle * 400 + year + (month < 3), month, day


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
