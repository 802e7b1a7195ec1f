"""What makes a translation impossible."""

from __future__ import annotations


class SourceError(ValueError):
    """The configuration cannot be read; the message has one line per problem, with its place."""
