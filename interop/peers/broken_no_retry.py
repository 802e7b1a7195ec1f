"""Broken on purpose: the server never asks for address validation. Must fail `retry`."""

from typing import Any

import aioquic.asyncio
import aioquic_peer as peer

_serve = aioquic.asyncio.serve


async def serve_without_retry(*args: Any, **kwargs: Any) -> Any:
    return await _serve(*args, **{**kwargs, "retry": False})


if __name__ == "__main__":
    aioquic.asyncio.serve = serve_without_retry
    peer.main()
