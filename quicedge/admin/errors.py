"""Why the admin API cannot start."""

from __future__ import annotations


class AdminAddressError(ValueError):
    """An admin address that is unusable or unsafe; the message names it."""
