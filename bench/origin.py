"""The origin that every proxy is measured in front of: quicedge's embedded one, on a given port."""

from __future__ import annotations

import asyncio
import sys

import uvloop

from quicedge.cli.origin import DemoOrigin


async def main() -> None:
    await DemoOrigin().start(int(sys.argv[1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
