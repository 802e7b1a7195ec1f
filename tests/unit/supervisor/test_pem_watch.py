"""Files of certificates are seen to change, however they are changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from quicedge.config.schema import Certificate, Tls
from quicedge.supervisor.pem_watch import PemWatch, signature


def rewritten(root: Path) -> None:
    """As a script does."""
    (root / "tls.crt").write_text("new one")


def renamed(root: Path) -> None:
    """As certbot replaces the links of its live directory; same size, same time."""
    before = (root / "tls.crt").stat()
    (root / "new").write_text("old")
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new").rename(root / "tls.crt")


def swapped(root: Path) -> None:
    """As Kubernetes swaps the link to all files of a secret."""
    (root / "..2").mkdir()
    for name in ("tls.crt", "tls.key"):
        (root / "..2" / name).write_text("old")
    (root / "tmp").symlink_to("..2")
    (root / "tmp").rename(root / "..data")


def removed(root: Path) -> None:
    (root / "tls.key").unlink()


def secret(root: Path) -> Path:
    """A directory as Kubernetes mounts a secret."""
    (root / "..1").mkdir(parents=True)
    (root / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key"):
        (root / "..1" / name).write_text("old")
        (root / name).symlink_to(f"..data/{name}")
    return root


@pytest.mark.parametrize("change", [rewritten, renamed, swapped, removed])
@pytest.mark.parametrize("by", ["files", "directory"])
def test_every_way_of_replacing_a_file_is_a_change(
    tmp_path: Path, change: Callable[[Path], None], by: str
) -> None:
    root = secret(tmp_path / "secret")
    entry = Certificate(cert=str(root / "tls.crt"), key=str(root / "tls.key"))
    tls = Tls(certificates=[entry])
    if by == "directory":
        tls = Tls(certificate_directories=[str(root)])
    before = signature(tls)
    assert signature(tls) == before
    change(root)
    assert signature(tls) != before


async def test_a_change_is_told_once(tmp_path: Path) -> None:
    root = secret(tmp_path / "secret")
    told = asyncio.Event()
    calls = 0

    async def changed() -> None:
        nonlocal calls
        calls += 1
        told.set()

    watch = PemWatch(lambda: Tls(certificate_directories=[str(root)]), changed)
    running = asyncio.create_task(watch.run(0.01))
    await asyncio.sleep(0.1)
    assert calls == 0
    swapped(root)
    await asyncio.wait_for(told.wait(), 10)
    await asyncio.sleep(0.1)
    assert calls == 1
    running.cancel()
