"""The embedded origin, for tests: in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from quicedge.cli.demo import embedded_origin


@contextmanager
def demo_origin() -> Iterator[str]:
    """Yields the URL of a running embedded origin."""
    with embedded_origin() as url:
        yield url
