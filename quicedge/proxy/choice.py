"""Which of several upstreams an exchange goes to."""

from __future__ import annotations

from typing import NamedTuple


class Choice(NamedTuple):
    """The side of a split (`split.Split`) that a request belongs to."""

    upstream: str
    """Its name."""
    group: int | None = None
    """The group of a client that is to be told it, by a cookie; None: no need."""
