"""The error for configured resources that are not usable on this machine."""

from __future__ import annotations


class UnusableError(ValueError):
    """A configured resource is not usable; the message begins with its key."""

    def __init__(self, key: str, reason: str | BaseException) -> None:
        if isinstance(reason, OSError):
            named = f"{reason.filename}: " if isinstance(reason.filename, str) else ""
            reason = f"{named}{reason.strerror or reason}"
        self.key = key
        self.reason = str(reason)
        super().__init__(f"{key}: {reason}")
