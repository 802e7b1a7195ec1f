"""The signals that the supervisor's event loop handles."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Callable[[], object]]) -> Iterator[None]:
    """Call the handlers in the running event loop; afterwards their signals change nothing until
    it is closed."""
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        # A closing loop closes the descriptor that signals are written to before it removes their
        # handlers; a signal in between would be reported as an error.
        signal.set_wakeup_fd(-1)
