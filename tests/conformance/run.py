"""aioquic's own test suite with our connection in place of its `QuicConnection`.

`make conformance` fetches aioquic's source distribution of the installed version with pip, puts a
conftest beside its tests that swaps the class, and runs them. Tests that assert a detail we changed
on purpose stand in `EXPECTED` with the reason; anything else that fails, fails the run, and so does
one of these that passes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

PACING = "our pacer sends bursts of up to 64 KB where aioquic's spaces packets"
CREDIT = "our flow control follows consumption, not arrival"
BUNDLED = "our pending ACK rides on the response, whether or not its timer has fired"

EXPECTED = {
    "test_connect_with_0rtt_and_amplification_limited_response": BUNDLED,
    "test_connect_with_0rtt_and_amplification_limited_paced_response": PACING,
    "test_connect_with_lost_server_handshake_and_full_congestion_window": PACING,
    "test_migrate_amplification_limit_with_pacing": PACING,
    "test_datagram_frame_2": PACING,
    "test_connect_with_large_packet_size": (
        "path MTU discovery starts at 1200 bytes, whatever is configured"
    ),
    "test_handle_new_connection_id_with_retire_prior_to_invalid": (
        "RFC 9000 section 19.15 names another error code"
    ),
    "test_send_max_streams_retransmit": (
        "finished streams go before the packet is built, so MAX_STREAMS is in it, not in a second"
    ),
    "test_send_max_data_blocked_by_cc": CREDIT,
    "test_send_max_data_retransmit": CREDIT,
    "test_send_max_stream_data_retransmit": CREDIT,
    "test_excessive_crypto_buffering": "our limit of a CRYPTO offset is 64 KB, not 512 KB",
}

CONFTEST = """
import aioquic.quic.connection as connection
from aioquic.quic.events import StreamDataReceived
from quicedge.quic.adapter import AdaptedConnection


class Consuming(AdaptedConnection):
    '''As aioquic's tests expect: takes data as it comes, numbers packets without gaps, sends one
    probe per PTO, and lets one connection ID come under several numbers, which RFC 9000 section
    19.15 leaves open.'''

    def __init__(self, **options):
        super().__init__(**options)
        self._skip_at = float("inf")

    def _check_reuse(self, *frame):
        pass

    def _probe_kinds(self):
        return super()._probe_kinds()[:1]

    def next_event(self):
        event = super().next_event()
        if isinstance(event, StreamDataReceived):
            self.consume(event.stream_id, len(event.data))
        return event


connection.QuicConnection = Consuming
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                "--no-binary", ":all:", "--dest", directory, f"aioquic=={version('aioquic')}",
            ],
            check=True,
        )  # fmt: skip
        (archive,) = Path(directory).glob("aioquic-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        (source,) = (path for path in Path(directory).glob("aioquic-*") if path.is_dir())
        (source / "conftest.py").write_text(CONFTEST)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "tests", "-q", "-p", "no:cacheprovider", "-rf",
             "--tb=no", "-o", "asyncio_default_fixture_loop_scope=function"],
            cwd=source, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return judge(done.stdout)


def judge(output: str) -> int:
    """Compare what failed with what is expected to; the exit code."""
    failed = set(re.findall(r"^FAILED \S+::(\w+)", output, re.MULTILINE))
    for name in sorted(failed & set(EXPECTED)):
        print(f"expected to differ: {name}: {EXPECTED[name]}")
    for name in sorted(failed - set(EXPECTED)):
        print(f"FAILED: {name}")
    for name in sorted(set(EXPECTED) - failed):
        print(f"passes by now, remove it from the list: {name}")
    print(output.strip().splitlines()[-1])
    return int(failed != set(EXPECTED) or " passed" not in output)


if __name__ == "__main__":
    sys.exit(main())
