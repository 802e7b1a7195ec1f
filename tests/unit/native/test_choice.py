"""Which core runs: chosen once, by what is installed and QUICEDGE_PURE, and said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import quicedge.quic.packet_cipher  # noqa: F401  it declares the twin
from tests.support.twins import both

ROOT = Path(__file__).resolve().parents[3]
SHOW = "from quicedge import native; print(native.describe())"


def said(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "QUICEDGE_PURE": "", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("value", ["", "0"])
def test_the_compiled_core_runs_where_it_is_installed(value: str) -> None:
    both("PacketCipher")
    assert said(SHOW, QUICEDGE_PURE=value) == "compiled"


def test_the_variable_chooses_python_for_all_twins() -> None:
    program = (
        "import sys, quicedge.udp.socket, quicedge.quic.endpoint; from quicedge import native;"
        "from quicedge.quic.packet_cipher import PacketCipher as c;"
        "from quicedge.quic.frames import parse_ack as p;"
        "from quicedge.udp.receiver import DatagramReceiver as r;"
        "assert [c, r, p] == [native.PURE[x.__name__] for x in (c, r, p)];"
        "assert 'quicedge._native' not in sys.modules;" + SHOW
    )
    assert said(program, QUICEDGE_PURE="1") == "pure (QUICEDGE_PURE is set)"


def test_python_runs_where_the_core_is_not_built() -> None:
    program = "import sys; sys.modules['quicedge._native'] = None;" + SHOW
    assert said(program) == "pure (not built)"


def test_a_core_of_another_interface_is_not_used() -> None:
    program = (
        "import sys, types; old = types.ModuleType('quicedge._native'); old.INTERFACE = 0;"
        "sys.modules['quicedge._native'] = old; import quicedge; quicedge._native = old;" + SHOW
    )
    assert said(program).startswith("pure (built for another version (interface 0, not ")


def test_a_core_that_cannot_be_loaded_is_not_used_and_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "_native.abi3.so").write_bytes(b"of another machine")
    program = f"import quicedge; quicedge.__path__.insert(0, {str(tmp_path)!r});" + SHOW
    found = said(program)
    assert found.startswith("pure (cannot be loaded: ")
    assert str(tmp_path) in found


def test_every_twin_has_a_compiled_one() -> None:
    _, compiled = both("PacketCipher")
    program = (
        "import quicedge.udp.socket, quicedge.quic.endpoint; from quicedge import native;"
        "print(*sorted(set(native.PURE) - set(dir(native.compiled))))"
    )
    assert compiled is not None
    assert said(program) == ""
