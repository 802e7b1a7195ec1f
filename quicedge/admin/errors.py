"""Why the admin API cannot start, or what it asks for cannot be done."""

from __future__ import annotations


class AdminAddressError(ValueError):
    """An admin address that is unusable or unsafe; the message names it."""


class RefusedError(Exception):
    """The edge does not do what was asked; the message says why."""
