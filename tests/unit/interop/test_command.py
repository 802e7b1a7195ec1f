"""`python -m interop` from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from interop.commands import COMMANDS, main
from interop.runner import certs, implementations


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(words))
    return result.exit_code, result.output


def test_every_command_has_help() -> None:
    for name in COMMANDS:
        code, output = run(name, "--help")
        assert code == 0, output
        assert "Usage:" in output


def test_the_package_runs_from_a_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "interop", "list"],
        cwd=implementations.INTEROP.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "handshake" in done.stdout


def test_list_names_every_case_and_peer() -> None:
    code, output = run("list", "--peer", f"mine={sys.executable}")
    assert code == 0
    for name in ("handshake", "crosstraffic", "gtls", "aioquic", "quic-go", "mine"):
        assert name in output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-t", "handshak"), "did you mean handshake?"),
        (("-t", "nonsense"), "`python -m interop list` shows them"),
        (("--client", "nobody"), "no implementation 'nobody'"),
        (("--peer", "x"), "wants NAME=COMMAND"),
        (("--peer", "x=no-such-program-here"), "no program"),
        (("--loopback", "-t", "ecn"), "can run without namespaces"),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], says: str, tmp_path: Path) -> None:
    code, output = run("run", *words, "-o", str(tmp_path))
    assert code not in (0, 100)
    assert says in output


def test_results_of_no_directory(tmp_path: Path) -> None:
    code, output = run("results", str(tmp_path / "none"))
    assert code == 2
    assert "does not exist" in output


def test_results_go_to_a_file_or_to_standard_output(tmp_path: Path) -> None:
    """Both hold the page that summarizes a run."""
    words = ["--peer", f"no={_refusing(tmp_path)}", "--client", "no", "--server", "no"]
    run("run", "--loopback", "-t", "handshake", *words, "-o", str(tmp_path / "out"))
    code, page = run("results", str(tmp_path / "out"))
    assert code == 0, page
    assert "Written by `python -m interop results`" in page
    assert run("results", str(tmp_path / "out"), "-o", str(tmp_path / "page.md")) == (0, "")
    assert (tmp_path / "page.md").read_text() == page


def _refusing(directory: Path) -> Path:
    """An endpoint that knows no case."""
    script = directory / "refuse.sh"
    script.write_text("#!/bin/sh\nexit 127\n")
    script.chmod(0o755)
    return script


def test_the_exit_code_counts_failures(tmp_path: Path) -> None:
    """A peer that refuses every case as unknown is compliant and fails nothing."""
    script = _refusing(tmp_path)
    words = ["--loopback", "-t", "handshake", "--peer", f"no={script}", "-o", str(tmp_path / "out")]
    code, output = run("run", *words, "--client", "no", "--server", "no")
    assert code == 0, output
    assert "Loopback subset" in output
    assert "exited with code 127" in output
    assert (tmp_path / "out" / "results.json").exists()
    assert (tmp_path / "out" / "index.html").exists()


def test_what_an_endpoint_prints_is_no_markup(tmp_path: Path) -> None:
    script = tmp_path / "loud.py"
    script.write_text(
        "import os, sys\n"
        "if os.environ['TESTCASE'] != 'handshake': sys.exit(127)\n"
        "sys.exit('[red] [/nope]')\n"
    )
    peer = f"loud={sys.executable} {script}"
    words = ["--loopback", "-t", "handshake", "--peer", peer, "-o", str(tmp_path / "out")]
    code, output = run("run", *words, "--client", "loud", "--server", "loud")
    assert code == 1, output
    assert "server exited with code 1 at start" in output


def test_peers_keep_their_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peer.py").write_text("")
    monkeypatch.chdir(tmp_path)
    peer = implementations.parse_peer(f"p={sys.executable} peer.py --fast")
    assert peer.server == (sys.executable, str(tmp_path / "peer.py"), "--fast")


def test_long_chains_are_long(tmp_path: Path) -> None:
    from cryptography import x509

    certs.write_certificates(tmp_path, chain_length=9)
    chain = x509.load_pem_x509_certificates((tmp_path / "cert.pem").read_bytes())
    (root,) = x509.load_pem_x509_certificates((tmp_path / "ca.pem").read_bytes())
    assert len(chain) == 9
    for certificate, issuer in zip(chain, [*chain[1:], root], strict=True):
        certificate.verify_directly_issued_by(issuer)
    from cryptography.hazmat.primitives.serialization import Encoding

    assert sum(len(item.public_bytes(Encoding.DER)) for item in chain) > 7500
    assert b"BEGIN EC PRIVATE KEY" in (tmp_path / "priv.key").read_bytes()
