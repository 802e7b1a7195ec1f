"""What outlives the processes of the edge, and who may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from quicedge.config.limits import STATE_FILE_MAX
from quicedge.config.schema import Config
from quicedge.supervisor import state as state_module
from quicedge.supervisor.state import StateDirectory, StateError, load_secret, open_state


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_what_is_kept(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        state = StateDirectory(tmp_path / "state")
        state.write("acme/accounts/key", b"secret")
    finally:
        os.umask(mask)
    assert state.read("acme/accounts/key") == b"secret"
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / "acme" / "accounts") == 0o700
    assert mode(tmp_path / "state" / "acme" / "accounts" / "key") == 0o600


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDirectory(tmp_path)
    state.write("key", b"old")

    def fail(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StateError, match="key: No space left on device"):
            state.write("key", b"new")
    assert state.read("key") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    state.write("key", b"new")
    assert state.read("key") == b"new"
    state.remove("key")
    state.remove("key")
    assert state.read("key") is None


@pytest.mark.parametrize("bits", [0o775, 0o777, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    tmp_path.chmod(bits)
    with pytest.raises(StateError, match=f"mode {bits:03o} lets others write there"):
        StateDirectory(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, -1)
    with pytest.raises(StateError, match="belongs to user 12345"):
        StateDirectory(tmp_path)


def test_a_directory_that_its_owner_cannot_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root can write to all but read-only file systems, which tests cannot mount.
    monkeypatch.setattr(os, "access", lambda path, how, **_: False)
    with pytest.raises(StateError, match="cannot be written to"):
        StateDirectory(tmp_path)


def test_what_is_not_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="file is not a directory"):
        StateDirectory(tmp_path / "file")
    with pytest.raises(StateError, match="missing/state: No such file"):
        StateDirectory(tmp_path / "missing" / "state")


def test_a_file_that_others_can_read_or_that_is_too_large_is_refused(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.write("key", b"x")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(StateError, match="key: mode 640, must be 600"):
        state.read("key")
    state.write("key", bytes(STATE_FILE_MAX + 1))
    with pytest.raises(StateError, match="key is larger than"):
        state.read("key")


def test_the_secret_is_kept(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    secret = load_secret(state)
    assert len(secret) == 32
    assert load_secret(StateDirectory(tmp_path)) == secret
    assert load_secret(None) != load_secret(None)


def test_a_damaged_secret_is_named(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.write("secret", b"short")
    with pytest.raises(StateError, match="secret: 5 bytes, must be 32; remove it"):
        load_secret(state)


def test_the_directory_is_that_of_the_configuration_or_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "DEFAULT_DIRECTORY", tmp_path / "default")
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    assert open_state(Config()) is None
    (tmp_path / "default").mkdir(mode=0o700)
    found = open_state(Config())
    assert found is not None
    assert found.path == tmp_path / "default"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'ours'}:{tmp_path / 'other'}")
    found = open_state(Config())
    assert found is not None
    assert found.path == tmp_path / "ours"
    found = open_state(Config(state_directory=str(tmp_path / "configured")))
    assert found is not None
    assert found.path == tmp_path / "configured"


def test_only_a_configured_directory_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "DEFAULT_DIRECTORY", tmp_path / "none")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "missing" / "state"))
    assert open_state(Config()) is None
    with pytest.raises(StateError):
        open_state(Config(state_directory=str(tmp_path / "missing" / "state")))
