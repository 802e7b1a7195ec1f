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
