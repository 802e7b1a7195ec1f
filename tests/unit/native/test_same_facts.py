"""Whole connections on either core, through loss, damage, migrations, key updates and resets: the
same bytes arrive, the same is counted, and the same traces are written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import quicedge.quic.packet_cipher  # noqa: F401  it declares the twin
from tests.support.certs import write_certificate
from tests.support.twins import both

ROOT = Path(__file__).resolve().parents[3]
SEEDS = range(10)

both("PacketCipher")


def started(certificate: tuple[Path, Path], pure: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.seeded", *map(str, (*certificate, *SEEDS))],
        cwd=ROOT, env={**os.environ, "QUICEDGE_PURE": pure}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_connections_on_either_core_are_the_same_to_the_last_event(tmp_path: Path) -> None:
    # Signatures of RSA have one length, and so have all packets.
    certificate = write_certificate(tmp_path, "localhost", kind="rsa")
    programs = [started(certificate, pure) for pure in ("1", "")]
    outputs = [program.communicate(timeout=100)[0] for program in programs]
    assert [program.returncode for program in programs] == [0, 0]
    pure, compiled = ([json.loads(line) for line in lines.splitlines()] for lines in outputs)
    for seed, left, right in zip(SEEDS, pure, compiled, strict=True):
        for fact in left:
            assert left[fact] == right[fact], f"seed {seed}: {fact}"

    def total(fact: str) -> int:
        found: int = sum(one[side][fact] for one in compiled for side in ("client", "server"))
        return found

    # They went through all of it.
    facts = ("packets_lost", "spurious", "timeouts", "migrations", "key_updates", "bytes_resent")
    assert not [fact for fact in facts if not total(fact)]
    assert any("quic:packet_lost" in trace for one in compiled for trace in one["qlog"])
    assert sum(len(one["complete"]) for one in compiled) >= len(SEEDS)
