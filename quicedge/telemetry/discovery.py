"""What is known about the names whose servers are looked up in DNS."""

from __future__ import annotations

from msgspec import Struct


class DiscoveryStats(Struct):
    """One name, as a worker sees it."""

    name: str
    servers: int
    age_seconds: float | None
    """Since DNS last named servers; None: it never has."""
    look_ups: int
    failures: int
    """Look-ups without an answer, or with an empty one: the last servers stay."""
    problem: str
    """Of the last look-up; empty: none."""
