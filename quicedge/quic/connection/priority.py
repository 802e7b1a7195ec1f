"""Ranks of streams: the order in which they are served (RFC 9218)."""

from __future__ import annotations

Rank = tuple[int, bool, int]

DEFAULT_RANK: Rank = 3, True, 0
"""RFC 9218 section 4.1 has urgency 3, not incremental; but requests that say nothing take turns, as
a small response should not wait behind a large one that nobody put first."""
CONTROL_RANK: Rank = -1, False, 0
"""Unidirectional streams: settings, QPACK. They are small and others depend on them."""


def rank_of(stream_id: int, urgency: int, incremental: bool) -> Rank:
    """Non-incremental ones go one after the other, incremental ones take turns."""
    return urgency, incremental, 0 if incremental else stream_id
