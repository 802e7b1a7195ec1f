"""The admin API of a running edge, asked by commands."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import click


class AdminError(Exception):
    """The admin API gave no answer, or one that says no."""


class AdminClient:
    """Asks the admin API at `host:port` or `unix:/path`."""

    def __init__(self, address: str, token: str | None = None) -> None:
        self._address = address
        self._token = token

    def get(self, path: str) -> Any:
        """The JSON of a resource; raises AdminError."""
        with self._ask(path) as answer:
            return json.loads(answer.read())

    def events(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Server-sent events as they come, name and data; raises AdminError."""
        with self._ask(path) as answer:
            name, data = "message", []
            for line in answer:
                field, _, value = line.rstrip(b"\r\n").partition(b":")
                if field == b"event":
                    name = value.strip().decode()
                elif field == b"data":
                    data.append(value.removeprefix(b" "))
                elif not line.strip():
                    if data:
                        yield name, b"\n".join(data)
                    name, data = "message", []

    @contextlib.contextmanager
    def _ask(self, path: str) -> Iterator[http.client.HTTPResponse]:
        """An answer to read that says yes; what fails while it is read is an AdminError too."""
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection = self._connection()
            with contextlib.closing(connection):
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    found = json.loads(answer.read())
                    raise AdminError(f"{self._address}: {found.get('error', answer.status)}")
                yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Refused, or no such socket: mostly an edge that does not run, or runs elsewhere.
            absent = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            hint = "; does the edge run? --admin says where its API is" if absent else ""
            reason = getattr(error, "strerror", None) or error
            raise AdminError(f"{self._address}: {reason}{hint}") from error

    def _connection(self) -> http.client.HTTPConnection:
        if not self._address.startswith("unix:"):
            return http.client.HTTPConnection(self._address, timeout=5)
        connection = http.client.HTTPConnection("localhost", timeout=5)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(5)
        connection.sock.connect(self._address.removeprefix("unix:"))
        return connection


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--admin` and `--token-file`, for a command that asks a running edge."""
    token = click.option("--token-file", type=click.File(), help="File with the bearer token.")
    address = click.option(
        "--admin", default="127.0.0.1:4480", show_default=True, metavar="ADDRESS",
        help="Admin API, host:port or unix:/path.",
    )  # fmt: skip
    return address(token(command))


def admin_client(admin: str, token_file: Any) -> AdminClient:
    """What `admin_options` name."""
    if token_file is None:
        return AdminClient(admin)
    try:
        token = token_file.read().strip()
    except UnicodeDecodeError as error:
        raise click.BadParameter(
            f"{token_file.name}: holds no token", param_hint="--token-file"
        ) from error
    return AdminClient(admin, token)
