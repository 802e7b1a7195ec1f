"""Stream priorities as ranks (RFC 9218): lower ranks are sent first."""

from __future__ import annotations

Rank = tuple[int, bool, int]

DEFAULT_RANK: Rank = 3, True, 0
"""Urgency 3 as in RFC 9218 section 4.1, but incremental: without an explicit priority, a small
response should not queue behind a large one."""
CONTROL_RANK: Rank = -1, False, 0
"""Unidirectional streams (control, QPACK): small, and others depend on them."""


def rank_of(stream_id: int, urgency: int, incremental: bool) -> Rank:
    """Non-incremental streams are sent sequentially, incremental ones round-robin."""
    return urgency, incremental, 0 if incremental else stream_id
