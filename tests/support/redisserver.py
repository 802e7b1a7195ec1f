"""A Redis server of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.peers import free_port, require, wait_until


@dataclass
class RedisServer:
    url: str
    process: subprocess.Popen[bytes]

    def client(self) -> Any:
        return pytest.importorskip("redis").Redis.from_url(self.url)

    def stop(self) -> None:
        """Nothing listens on its port afterwards."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def redis_server(directory: Path, port: int | None = None) -> Iterator[RedisServer]:
    """Redis on 127.0.0.1, with nothing kept on disk."""
    program = require("redis-server")
    redis = pytest.importorskip("redis")
    port = free_port() if port is None else port
    with (directory / "redis.out").open("wb") as output:
        process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            stdout=output, stderr=subprocess.STDOUT, cwd=directory,
        )  # fmt: skip

    def is_up() -> bool:
        try:
            return bool(redis.Redis(port=port).ping())
        except redis.ConnectionError:
            return False

    server = RedisServer(f"redis://127.0.0.1:{port}/0", process)
    try:
        wait_until(is_up, "the Redis server")
        yield server
    finally:
        server.stop()
