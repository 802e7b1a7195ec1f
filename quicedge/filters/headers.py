"""Header fields of a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from quicedge.http.grammar import FIELD_NAME, FIELD_VALUE
from quicedge.http.message import Fields

FRAMING = frozenset(
    (
        "connection", "content-length", "host", "keep-alive", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    )
)  # fmt: skip
"""Fields that delimit messages or concern one connection: they can be read, but not changed."""


class Headers(MutableMapping[str, str]):
    """Header fields by name, without regard to case.

    The values of a field that occurs several times are joined by ", " (RFC 9110 section 5.3);
    `get_all` returns them one by one, as `set-cookie` requires. Setting a field replaces all of its
    lines. Raises ValueError for names and values that no message may contain, and for changes of
    those in `FRAMING`.
    """

    __slots__ = ("_fields", "is_changed", "written")

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._fields: Fields = []
        self.is_changed = False
        self.written: set[bytes] = set()
        """Names whose lines were replaced or removed, as far as there were any."""
        items = fields.items() if isinstance(fields, Mapping) else fields
        for name, value in items:
            self.add(name, value)

    @classmethod
    def of(cls, fields: Fields) -> Headers:
        """The header fields of a message of the edge."""
        headers = cls()
        headers._fields = fields
        return headers

    def to_fields(self) -> Fields:
        """The field lines, for the edge."""
        return self._fields

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        line = _line(name, value)
        self._remove(line[0])
        self._fields.append(line)

    def __delitem__(self, name: str) -> None:
        if not self._remove(_name(name)):
            raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("ascii") for name, _ in self._fields))

    def __len__(self) -> int:
        return len({name for name, _ in self._fields})

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        wanted = name.lower().encode()
        return any(other == wanted for other, _ in self._fields)

    def __repr__(self) -> str:
        return f"Headers({self.lines()!r})"

    def get_all(self, name: str) -> list[str]:
        """The values of all lines of a field, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for other, value in self._fields if other == wanted]

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a field and return its value, or the default if there is none."""
        # Origins may take another field for it, whether or not it is there itself.
        self.written.add(name.lower().encode("ascii", "replace"))
        return super().pop(name, *default)

    def add(self, name: str, value: str) -> None:
        """Add a line, beside others of the same name."""
        line = _line(name, value)
        self._own()
        self._fields.append(line)

    def lines(self) -> list[tuple[str, str]]:
        """All lines, in order, with names in lower case."""
        return [(name.decode("ascii"), value.decode("latin-1")) for name, value in self._fields]

    def _remove(self, name: bytes) -> bool:
        self._own()
        self.written.add(name)
        before = len(self._fields)
        self._fields[:] = [line for line in self._fields if line[0] != name]
        return len(self._fields) < before

    def _own(self) -> None:
        """Copy the lines before the first change: those of the message are shared."""
        if not self.is_changed:
            self.is_changed = True
            self._fields = list(self._fields)


def _name(name: str) -> bytes:
    lower = name.lower()
    if lower in FRAMING:
        raise ValueError(f"{name!r} is the edge's: it delimits messages or concerns a connection")
    encoded = lower.encode()
    if not FIELD_NAME.fullmatch(encoded):
        raise ValueError(f"{name!r} is not the name of a field")
    return encoded


def _line(name: str, value: str) -> tuple[bytes, bytes]:
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"the value of {name!r} is not Latin-1; percent-encode it") from None
    if not FIELD_VALUE.fullmatch(encoded):
        raise ValueError(f"{value!r} is not the value of a field")
    return _name(name), encoded
