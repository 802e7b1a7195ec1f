"""What a configuration names and this machine does not give."""

from __future__ import annotations


class UnusableError(ValueError):
    """Something the configuration names cannot be used here; the message begins with its key."""

    def __init__(self, key: str, reason: str | BaseException) -> None:
        if isinstance(reason, OSError):
            named = f"{reason.filename}: " if isinstance(reason.filename, str) else ""
            reason = f"{named}{reason.strerror or reason}"
        self.key = key
        super().__init__(f"{key}: {reason}")
