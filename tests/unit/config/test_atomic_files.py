"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from quicedge.config.atomic_files import atomic_write


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_all_of_it_is_written(tmp_path: Path, durable: bool) -> None:
    path, temporary = tmp_path / "a", tmp_path / ".a.new"
    path.write_text("old")
    with atomic_write(path, temporary, 0o600, durable=durable) as file:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_stays_as_it_is_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path, tmp_path / ".a.new", 0o600) as file:
            file.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_temporary_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    temporary = tmp_path / ".a.new"
    temporary.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a", temporary, 0o600):
        pass
    assert temporary.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
