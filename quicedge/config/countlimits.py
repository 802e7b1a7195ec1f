"""Limits on what is counted over the ends of workers."""

from __future__ import annotations

from typing import Final

CONTROL_LAST_WORDS: Final = 0.5
"""Seconds that a worker at its end waits for its supervisor to read its last message, and that one
for what a worker said that has ended."""

TALLY_DELAY: Final = 1.0
"""Seconds after the end of a worker until the others get a copy of what all that ended had counted:
workers end together."""
