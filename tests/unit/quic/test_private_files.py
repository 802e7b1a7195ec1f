"""Files with secrets: who may read them."""

from __future__ import annotations

import os

import pytest

from quicedge.quic.privatefile import is_private


def status(mode: int, uid: int, gid: int = 1000) -> os.stat_result:
    return os.stat_result((0o100000 | mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "expected"),
    [
        (0o600, 1000, 1000, True),
        (0o400, 0, 0, True),
        (0o640, 1000, 1000, False),
        (0o644, 0, 1000, False),
        (0o440, 0, 1000, True),
        (0o640, 0, 1001, True),
        (0o640, 0, 1002, False),
        (0o660, 0, 1000, False),
        (0o441, 0, 1000, False),
    ],
)
def test_roots_files_may_be_readable_by_a_group_of_ours(
    monkeypatch: pytest.MonkeyPatch, mode: int, uid: int, gid: int, expected: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [1001])
    assert is_private(status(mode, uid, gid)) is expected


def test_root_itself_shares_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert is_private(status(0o600, 0, 0))
    assert not is_private(status(0o640, 0, 0))
