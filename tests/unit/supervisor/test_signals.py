"""Signals that the supervisor's event loop handles."""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys

import pytest

from quicedge.supervisor.signals import handled


class LateSignal(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """A selector whose loop gets a signal while it is closed."""

    def close(self) -> None:
        signal.raise_signal(signal.SIGUSR2)
        super().close()


def test_a_signal_while_the_event_loop_is_closed_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received: list[str] = []
    errors: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)

    async def serve() -> None:
        arrived = asyncio.Event()

        def handler() -> None:
            received.append("SIGUSR2")
            arrived.set()

        with handled({signal.SIGUSR2: handler}):
            signal.raise_signal(signal.SIGUSR2)
            await arrived.wait()

    loop = asyncio.SelectorEventLoop(LateSignal())
    try:
        loop.run_until_complete(serve())
    finally:
        loop.close()
    assert received == ["SIGUSR2"]
    assert errors == []
