"""The operator's command for DNS-01."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quicedge.acme.challenge import ChallengeKind, Proof
from quicedge.supervisor import dns_command
from quicedge.supervisor.dns_command import DnsCommand

PROOF = Proof(kind=ChallengeKind.DNS_01, name="a.example.com", token="t", key_authorization="t.k")


def command(tmp_path: Path, body: str) -> DnsCommand:
    program = tmp_path / "dns.py"
    program.write_text(f"import sys, time\n{body}\n")
    return DnsCommand([sys.executable, str(program), "--zone"])


async def test_it_is_told_action_name_and_value(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    one = command(tmp_path, f"open({str(seen)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')")
    assert await one.add([PROOF]) is None
    await one.remove([PROOF])
    arguments = f"_acme-challenge.a.example.com. {PROOF.record_value}"
    assert seen.read_text() == f"--zone add {arguments}\n--zone remove {arguments}\n"


async def test_the_last_line_it_prints_says_why_it_failed(tmp_path: Path) -> None:
    one = command(tmp_path, "print('trying'); print('no such zone\\x1b[31m'); sys.exit(3)")
    assert await one.add([PROOF, PROOF]) == (
        "tls.acme.dns_command add ended with 3: no such zone [31m"
    )


async def test_a_command_that_is_missing_is_named(tmp_path: Path) -> None:
    error = await DnsCommand([str(tmp_path / "none")]).add([PROOF])
    assert error == f"tls.acme.dns_command: {tmp_path}/none: No such file or directory"


async def test_a_command_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_command, "DNS_COMMAND_TIMEOUT", 0.5)
    error = await command(tmp_path, "time.sleep(600)").add([PROOF])
    assert error == "tls.acme.dns_command: not done within 0.5 s"
