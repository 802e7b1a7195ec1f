"""Configuration schema of the filters of routes: `[[filters]]` and `[[routes.filters]]`.

Each entry is a table with one key, the kind of the filter, whose value is a table of its settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from quicedge.config.section import Section

Status = Annotated[int, Meta(ge=200, le=599)]


class Redirect(Section, frozen=True):
    """Redirect all requests."""

    to: str
    """The target, a URL or a path, with placeholders."""
    status: Literal[301, 302, 303, 307, 308] = 302


class Respond(Section, frozen=True):
    """Answer all requests."""

    status: Status = 200
    body: str = ""
    """The content, with placeholders."""
    content_type: str = "text/plain; charset=utf-8"


class Rewrite(Section, frozen=True):
    """Change the target of requests before they go to the origin; the steps are taken in the order
    of these keys."""

    strip_prefix: str | None = None
    """Whole segments that are removed from the beginning of the path."""
    pattern: str | None = None
    """A regular expression; the part of the path that it matches is replaced."""
    replacement: str = ""
    r"""What takes its place; `\1` stands for a group."""
    add_prefix: str | None = None
    """Put before the path."""
    path: str | None = None
    """The whole path, with placeholders."""
    query: Literal["keep", "drop"] = "keep"
    host: str | None = None
    """The host that the origin is asked for, with placeholders."""


class FieldRules(Section, frozen=True):
    """Changes of header fields, made in the order of these keys; values have placeholders."""

    remove: list[str] = field(default_factory=list)
    """Names; `x-internal-*` stands for all that begin so."""
    set: dict[str, str] = field(default_factory=dict)
    """Fields that take the place of all others of their name."""
    default: dict[str, str] = field(default_factory=dict)
    """Fields that are added if there is none of their name."""
    add: dict[str, str] = field(default_factory=dict)
    """Fields that are added to others of their name."""


class Headers(Section, frozen=True):
    """Change header fields."""

    request: FieldRules | None = None
    """Of requests to the origin."""
    response: FieldRules | None = None
    """Of responses to the client."""


class FilterEntry(Section, frozen=True):
    """One filter: exactly one of these keys."""

    redirect: Redirect | None = None
    respond: Respond | None = None
    rewrite: Rewrite | None = None
    headers: Headers | None = None

    @property
    def kind(self) -> str:
        """The key that is given; empty if there is none, or more than one."""
        given = [name for name in KINDS if getattr(self, name) is not None]
        return given[0] if len(given) == 1 else ""


KINDS = FilterEntry.__struct_fields__
"""The kinds of filters."""

ANSWERING = frozenset({"redirect", "respond"})
"""Kinds that answer every request, so that none reaches what is behind them."""
