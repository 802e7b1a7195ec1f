"""Preconditions and ranges of a stored representation (RFC 9110 sections 13 and 14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from quicedge.http.dates import parse_date
from quicedge.http.message import Field

_ETAG = re.compile(rb'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(rb"([0-9]*)-([0-9]*)")
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of one version of a representation."""

    etag: bytes
    """An entity tag with its quotes, prefixed with `W/` if it is weak."""
    modified: int
    """Seconds since 1970."""
    size: int
    """Bytes of the whole representation."""


class Range(NamedTuple):
    """The bytes from `first` up to, but not including, `stop`."""

    first: int
    stop: int


class Selection(NamedTuple):
    """The status of the response, and the range to send with 206."""

    status: int
    part: Range | None = None


def select(method: bytes, fields: Sequence[Field], current: Validators, now: float) -> Selection:
    """Evaluate the preconditions of a GET or HEAD: 200, 206, 304, 412 or 416.

    The order of evaluation is that of RFC 9110 section 13.2.2.

    `now`: seconds since 1970.
    """
    if_match = _list(fields, b"if-match")
    if if_match is not None:
        if not _matches(if_match, current.etag, weak=False):
            return Selection(412)
    else:
        unmodified = _date(fields, b"if-unmodified-since", now)
        if unmodified is not None and current.modified > unmodified:
            return Selection(412)
    if_none_match = _list(fields, b"if-none-match")
    if if_none_match is not None:
        if _matches(if_none_match, current.etag, weak=True):
            return Selection(304)
    else:
        modified = _date(fields, b"if-modified-since", now)
        if modified is not None and current.modified <= modified:
            return Selection(304)
    # RFC 9110 section 14.2: a server MUST ignore a Range header field received with a request
    # method that is unrecognized or for which range handling is not defined (only GET has it).
    if method != b"GET":
        return Selection(200)
    ranges = [value for name, value in fields if name == b"range"]
    if len(ranges) != 1 or not _range_still_fits(fields, current, now):
        return Selection(200)
    return _select_range(ranges[0], current.size)


def _list(fields: Sequence[Field], name: bytes) -> bytes | None:
    values = [value for key, value in fields if key == name]
    return b",".join(values) if values else None


def _matches(listed: bytes, etag: bytes, weak: bool) -> bool:
    """Whether `*` or one of the listed tags is the current one (RFC 9110 section 8.8.3.2)."""
    if listed.strip() == b"*":
        return True
    if not weak and etag.startswith(b"W/"):
        return False
    opaque = etag.removeprefix(b"W/")
    return any(
        found[0].removeprefix(b"W/") == opaque and (weak or not found[1])
        for found in _ETAG.finditer(listed)
    )


def _date(fields: Sequence[Field], name: bytes, now: float) -> int | None:
    """The time in a date field; None if it is absent or invalid, and then to be ignored."""
    values = [value for key, value in fields if key == name]
    return parse_date(values[0], now) if len(values) == 1 else None


def _range_still_fits(fields: Sequence[Field], current: Validators, now: float) -> bool:
    """Evaluate If-Range; strong comparison keeps parts of two versions from being combined."""
    value = _list(fields, b"if-range")
    if value is None:
        return True
    if _ETAG.fullmatch(value):
        return _matches(value, current.etag, weak=False)
    # RFC 9110 section 13.1.5: a date is compared for equality, and must be a strong validator.
    return _date(fields, b"if-range", now) == current.modified and not current.etag.startswith(
        b"W/"
    )


def _select_range(value: bytes, size: int) -> Selection:
    unit, _, specification = value.partition(b"=")
    # Multiple ranges get the whole representation, as RFC 9110 section 14.2 allows: requests for
    # many small or overlapping ranges are a known attack (CVE-2011-3192).
    match = _RANGE.fullmatch(specification.strip())
    if unit.strip().lower() != b"bytes" or match is None or value.strip().endswith(b"=-"):
        return Selection(200)
    first_digits, last_digits = match.groups()
    if len(first_digits) > _MAX_DIGITS or len(last_digits) > _MAX_DIGITS:
        return Selection(200)
    if not first_digits:
        length = min(int(last_digits), size)
        return Selection(206, Range(size - length, size)) if length else Selection(416)
    first = int(first_digits)
    if last_digits and int(last_digits) < first:
        return Selection(200)
    if first >= size:
        return Selection(416)
    return Selection(206, Range(first, min(int(last_digits) + 1, size) if last_digits else size))
