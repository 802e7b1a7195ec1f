"""What a reload may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quicedge.config.schema import Config
from quicedge.supervisor.reload import ReloadError, reread


def test_a_pipe_is_not_read_again(tmp_path: Path) -> None:
    """Reading it would block the supervisor and with it all of the administration."""
    path = tmp_path / "edge.toml"
    os.mkfifo(path)
    with pytest.raises(ReloadError, match="regular file"):
        reread(str(path), Config(upstreams={}, routes=[]))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReloadError, match="No such file"):
        reread(str(tmp_path / "edge.toml"), Config(upstreams={}, routes=[]))


@pytest.mark.parametrize(
    ("protocols", "words"),
    [
        ('["h3"]', "is open for UDP and TCP; opening it for UDP requires a restart"),
        ('["h2"]', "is open for UDP and TCP; opening it for TCP requires a restart"),
    ],
)
def test_protocols_that_would_open_or_close_sockets_are_named(
    tmp_path: Path, protocols: str, words: str
) -> None:
    path = tmp_path / "edge.toml"
    path.write_text(
        f"""
listen = ["127.0.0.1:4433"]
protocols = {protocols}
[upstreams.app]
servers = ["http://127.0.0.1:9"]
[[routes]]
upstream = "app"
"""
    )
    current = Config(upstreams={}, routes=[], listen=["127.0.0.1:4433"])
    with pytest.raises(ReloadError, match=f"protocols: 127.0.0.1:4433 {words}"):
        reread(str(path), current)
