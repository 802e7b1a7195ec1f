"""The origin of the upgrade soak: downloads, uploads, an endless stream of events, WebSockets.

Usage: upgradeorigin.py PORT.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from urllib.parse import parse_qs, urlsplit

import uvloop

from bench import answers

EVENT_SECONDS = 0.5
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *rest = head.decode("latin-1").split("\r\n")
            _, target, _ = line.split(" ", 2)
            fields = dict(item.lower().split(": ", 1) for item in rest if ": " in item)
            url = urlsplit(target)
            if fields.get("upgrade") == "websocket":
                await echo(reader, writer, _key(rest))
                return
            if url.path == "/events":
                await events(writer)
                return
            body = await _body(reader, fields)
            if url.path == "/upload":
                answer = hashlib.sha256(body).hexdigest().encode()
            else:
                answer = answers.body(int(parse_qs(url.query)["size"][0]))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    body = b""
    while fields.get("transfer-encoding") == "chunked":
        size = int(await reader.readline(), 16)
        body += await reader.readexactly(size)
        await reader.readexactly(2)
        if not size:
            break
    return body


async def events(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    number = 0
    while not writer.is_closing():
        event = b"data: %d\n\n" % number
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        number += 1
        await asyncio.sleep(EVENT_SECONDS)


def _key(lines: list[str]) -> bytes:
    return next(x.split(": ", 1)[1] for x in lines if x.lower().startswith("sec-websocket-key"))\
        .encode()  # fmt: skip


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: bytes) -> None:
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )
    while True:
        opcode, content = await read_frame(reader)
        writer.write(bytes((0x80 | opcode, len(content))) + content)
        await writer.drain()
        if opcode == 8:
            return


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Opcode and content of a short frame, masked or not."""
    first, second = await reader.readexactly(2)
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    content = await reader.readexactly(second & 0x7F)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(content))


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
