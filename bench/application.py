"""An ASGI application that answers `/download` and `/upload` itself."""

from __future__ import annotations

import hashlib
from typing import Any

from bench import answers


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        size = answers.download_size(scope["path"] + "?" + scope["query_string"].decode())
    else:
        sha, size = hashlib.sha256(), 0
        while True:
            message = await receive()
            sha.update(message.get("body", b""))
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        content = answers.receipt(sha.hexdigest(), size)
        await _respond(send, len(content))
        await send({"type": "http.response.body", "body": content})
        return
    await _respond(send, size)
    for at in range(0, size, len(answers.BLOCK)):
        piece = answers.BLOCK[: size - at]
        last = at + len(piece) >= size
        await send({"type": "http.response.body", "body": piece, "more_body": not last})


async def _respond(send: Any, length: int) -> None:
    headers = [(b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
