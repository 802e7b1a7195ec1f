"""All tests of this package run on both event loops and must not leak tasks or sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop


@pytest.hookimpl(optionalhook=True)
def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def _sockets() -> set[str]:
    """TCP sockets of this process, by inode."""
    ours = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            ours.add(target[8:-1])
    rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return ours & {row.split()[9] for row in rows}


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    before = _sockets()
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    yield
    for _ in range(200):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks and _sockets() <= before:
            break
        await asyncio.sleep(0.005)
    assert not tasks
    assert _sockets() <= before
    assert not errors
