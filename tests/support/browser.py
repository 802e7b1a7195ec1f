"""Chromium with a certificate authority of its own, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websockets

from tests.support.peers import require

PROTOCOL = "performance.getEntriesByType('navigation')[0].nextHopProtocol"


class Page:
    """A tab of a running browser."""

    def __init__(self, devtools: websockets.ClientConnection) -> None:
        self._devtools = devtools
        self._numbers = itertools.count(1)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._devtools.send(
            json.dumps({"id": number, "method": method, "params": parameters})
        )
        answer = await self._next(lambda message: message.get("id") == number)
        assert "result" in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    async def _next(self, is_it: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message of a kind; those before it are dropped."""
        async with asyncio.timeout(60):
            while True:
                message: dict[str, Any] = json.loads(await self._devtools.recv())
                if is_it(message):
                    return message

    async def load(self, url: str) -> str:
        """Load a page with all that it contains, and return the protocol that it came over."""
        await self.call("Page.enable")
        await self.call("Page.setLifecycleEventsEnabled", enabled=True)
        begun = await self.call("Page.navigate", url=url)
        assert "errorText" not in begun, begun
        event = {"loaderId": begun["loaderId"], "name": "load"}
        await self._next(lambda message: event.items() <= message.get("params", {}).items())
        found = await self.evaluate(PROTOCOL)
        assert isinstance(found, str)
        return found

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, which may be a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


def trust(home: Path, ca: Path) -> None:
    """Make programs that use NSS with this home trust a certificate authority."""
    store = home / ".pki" / "nssdb"
    store.mkdir(parents=True)
    for arguments in (
        ("-N", "--empty-password"),
        ("-A", "-t", "C,,", "-n", "quicedge test", "-i", str(ca)),
    ):
        subprocess.run(
            [require("certutil"), "-d", f"sql:{store}", *arguments], check=True, timeout=30
        )


def _tab(port: str) -> str:
    """The URL of the DevTools of the only tab."""
    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
        (tab,) = (one for one in json.load(answer) if one["type"] == "page")
    return str(tab["webSocketDebuggerUrl"])


@asynccontextmanager
async def chromium(home: Path, *options: str) -> AsyncIterator[Page]:
    """A browser whose profile and trusted authorities are below `home`."""
    profile = home / "profile"
    process = await asyncio.create_subprocess_exec(
        require("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={profile}",
        "--remote-debugging-port=0", *options, "about:blank",
        env={**os.environ, "HOME": str(home)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        place = profile / "DevToolsActivePort"
        async with asyncio.timeout(60):
            while not place.exists() or "\n" not in place.read_text():
                await asyncio.sleep(0.05)
        port = place.read_text().split()[0]
        tab = await asyncio.to_thread(_tab, port)
        async with websockets.connect(tab, max_size=None) as devtools:
            yield Page(devtools)
    finally:
        process.terminate()
        await process.wait()
