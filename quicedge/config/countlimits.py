"""Limits on what is counted over the ends of workers."""

from __future__ import annotations

from typing import Final

CONTROL_LAST_WORDS: Final = 0.5
"""Seconds that an ending worker waits until its last message is sent, and that the supervisor waits
for the last message of a worker that has ended."""

TALLY_DELAY: Final = 1.0
"""Seconds after the end of a worker until the others get a copy of what all that ended had counted:
workers end together."""
