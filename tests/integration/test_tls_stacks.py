"""What clients on other TLS stacks negotiate, as `python -m interop tls` finds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interop.commands.tls import BEGIN, END
from interop.runner.implementations import NotHere
from interop.tls.matrix import CASES, HEAD, RETRY_GROUP, Case, Outcome, row, run_case
from interop.tls.server import Facts
from interop.tls.stacks import STACKS, Stack

HYBRID, AES_128 = "X25519MLKEM768", "AES_128_GCM_SHA256"


def stack(name: str) -> Stack:
    try:
        return STACKS[name]()
    except NotHere as missing:
        if os.environ.get("QUICEDGE_REQUIRE_PEERS") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


async def facts(name: str, case: Case, directory: Path) -> list[Facts]:
    outcome = await run_case(stack(name), case, directory)
    assert outcome.code == 0, outcome.output
    return outcome.facts


@pytest.mark.parametrize(
    ("name", "group", "compression"),
    [
        ("curl_cffi", HYBRID, "brotli"),
        ("chromium", HYBRID, "brotli"),
        ("qh3", HYBRID, "brotli"),
        ("gtls", "x25519", "none"),
        ("aioquic", "x25519", "none"),
    ],
)
async def test_what_a_handshake_over_quic_negotiates(
    name: str, group: str, compression: str, tmp_path: Path
) -> None:
    (found, *_) = await facts(name, CASES["ecdsa"], tmp_path)
    assert (found.group, found.cipher, found.compression) == (group, AES_128, compression)
    assert found.signature == "ecdsa_secp256r1_sha256"
    assert not found.hello_retry


@pytest.mark.parametrize("name", ["curl_cffi", "gtls"])
async def test_clients_answer_a_hello_retry_request(name: str, tmp_path: Path) -> None:
    (found, *_) = await facts(name, CASES["retry"], tmp_path)
    assert found.hello_retry
    assert found.group == RETRY_GROUP


@pytest.mark.parametrize("name", ["gtls", "qh3"])
async def test_clients_resume_with_early_data(name: str, tmp_path: Path) -> None:
    first, second = await facts(name, CASES["zerortt"], tmp_path)
    assert not first.resumed
    assert second.resumed
    assert second.early_data


async def test_openssl_over_tcp(tmp_path: Path) -> None:
    first, second = await facts("openssl", CASES["resumption"], tmp_path)
    assert first.group in (HYBRID, "x25519")  # as the OpenSSL of this Python has it
    assert not first.resumed
    assert second.resumed


def test_a_row_tells_what_was_not_tried_from_what_failed() -> None:
    found = Facts(1.0, HYBRID, False, AES_128, "ed25519", "none", True, False)
    outcomes = dict.fromkeys(CASES, Outcome(0, [found]))
    outcomes["retry"] = Outcome(1, [])
    outcomes["zerortt"] = Outcome(127, [])
    cells = [cell.strip() for cell in row(Stack("a", "b", (), "1"), outcomes).split("|")[1:-1]]
    assert cells == [
        "a 1", "b", "QUIC", HYBRID, AES_128, "ed25519, ed25519", "✕", "not compressed", "✓",
        "not tried",
    ]  # fmt: skip


def test_the_page_holds_a_table_of_ten_stacks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    table = page.partition(BEGIN)[2].partition(END)[0]
    assert table.startswith(HEAD)
    assert len(table.splitlines()) >= 2 + 10
