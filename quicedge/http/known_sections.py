"""Field sections of HTTP/3 requests that were decoded before: a client repeats its requests.

Only what is encoded without the dynamic table is remembered (a Required Insert Count of 0, RFC 9204
section 4.5.1): its meaning does not depend on the connection, so one memory serves a worker.
"""

from __future__ import annotations

from quicedge.config.limits import H3_REMEMBERED_SECTION, H3_SECTIONS_REMEMBERED
from quicedge.http.message import Field, Fields, Request, section_size
from quicedge.http.remembered import Remembered
from quicedge.http.validation import MessageLimits, validate_request


class KnownSection(list[Field]):
    """The lines of a decoded section, to be read only, and what was found out about them."""

    __slots__ = ("_limits", "_request", "size")

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.size = section_size(fields)
        self._request: Request | None = None
        self._limits: MessageLimits | None = None

    def as_request(self, limits: MessageLimits) -> Request:
        """A request of its own with these lines, within the bounds of a section; raises
        MessageError."""
        if self._limits is not limits:
            self._request = validate_request(self, limits, is_measured=True)
            self._limits = limits
        request = self._request
        assert request is not None
        return request.with_fields(request.fields.copy())


class KnownSections:
    """The sections that a worker remembers, by their encoded form, from the second time on."""

    __slots__ = ("_known", "_seen", "get")

    def __init__(self) -> None:
        self._known = Remembered[KnownSection](H3_SECTIONS_REMEMBERED, H3_REMEMBERED_SECTION)
        self.get = self._known.get
        """The section of an encoded one, if that was decoded before."""
        self._seen: set[int] = set()
        """Hashes of blocks that came once: most requests are never repeated."""

    def __len__(self) -> int:
        return len(self._known)

    def note(self, block: bytes, fields: Fields) -> Fields:
        """Remember what a block was decoded to, if it may be; returns the lines."""
        if len(block) > H3_REMEMBERED_SECTION or block[0]:
            return fields
        seen = hash(block)
        if seen not in self._seen:
            if len(self._seen) >= H3_SECTIONS_REMEMBERED:
                self._seen.clear()
            self._seen.add(seen)
            return fields
        known = KnownSection(fields)
        self._known.remember(block, known)
        return known
