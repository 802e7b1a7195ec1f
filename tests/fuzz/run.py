"""`make fuzz`: every target, with atheris where it is installed and with our own mutator elsewhere.

    python -m tests.fuzz.run [--seconds N] [--mutator] [TARGET...]

Beyond exceptions, an input fails that takes more than `STALL` seconds of CPU, or makes the process
grow without end. The input is written to `fuzz-TARGET-HASH` in the current directory.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from quicedge.worker.memory import resident_bytes
from tests.fuzz.mutate import MOST, inputs
from tests.fuzz.targets import MAX_GROWTH, TARGETS

STALL = 0.05
"""Seconds of CPU an input may take; measured again before it counts, for the collector's sake."""
MAX_RESIDENT_GROWTH = 400 * 1024 * 1024
"""Bytes that all inputs of a run together may leave behind."""


class Finding(Exception):
    """An input broke an invariant; the message says which."""


def check(name: str, data: bytes) -> None:
    """Run a target on an input; raises Finding, or what the target raised."""
    run = TARGETS[name].run
    started = time.process_time()
    run(data)
    if time.process_time() - started > STALL:
        best = float("inf")
        for _ in range(3):
            started = time.process_time()
            run(data)
            best = min(best, time.process_time() - started)
        if best > STALL:
            raise Finding(f"{best * 1000:.0f} ms of CPU for {len(data)} bytes")


def with_mutator(name: str, seconds: float, seed: int) -> int:
    """Inputs of our own mutator; how many there were. Raises what `check` raises."""
    before = resident_bytes()
    until = time.monotonic() + seconds
    count = 0
    for data in inputs(TARGETS[name].seeds(), random.Random(seed)):
        try:
            check(name, data)
        except BaseException:
            _keep(name, data)
            raise
        count += 1
        if time.monotonic() > until:
            break
    if resident_bytes() - before > MAX_RESIDENT_GROWTH + MAX_GROWTH:
        raise Finding(f"{name}: grew by {(resident_bytes() - before) >> 20} MB")
    return count


def _keep(name: str, data: bytes) -> None:
    path = Path(f"fuzz-{name}-{hashlib.sha256(data).hexdigest()[:12]}")
    path.write_bytes(data)
    print(f"{name}: the input is in {path}", file=sys.stderr)


def with_atheris(name: str, seconds: float) -> int:
    """In a process of its own, for libFuzzer ends it; its exit code."""
    with tempfile.TemporaryDirectory() as directory:
        for index, data in enumerate(TARGETS[name].seeds()):
            Path(directory, f"seed{index}").write_bytes(data)
        return subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run", "--atheris-target", name, directory,
             f"-max_total_time={int(seconds)}", f"-max_len={MOST}", "-verbosity=0",
             f"-artifact_prefix=fuzz-{name}-"],
            check=False,
        ).returncode  # fmt: skip


def _atheris_main(name: str, arguments: list[str]) -> None:
    import atheris

    # The handshakes that the targets make are not what is looked at.
    logging.disable(logging.CRITICAL)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments], lambda data: check(name, data))
    atheris.Fuzz()


def main() -> int:
    if sys.argv[1:2] == ["--atheris-target"]:
        _atheris_main(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description="Fuzz quicedge.")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--mutator", action="store_true", help="not atheris, even if it is here")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    use_atheris = not options.mutator and importlib.util.find_spec("atheris") is not None
    if not use_atheris and not options.mutator:
        print("atheris is not installed (pip install 'quicedge[fuzz]'): using a plain mutator")
    logging.disable(logging.CRITICAL)
    failed = 0
    for name in options.targets or TARGETS:
        started = time.monotonic()
        if use_atheris:
            code = with_atheris(name, options.seconds)
            failed += code != 0
            print(f"{name}: {'ok' if code == 0 else 'FAILED'}")
            continue
        seed = options.seed if options.seed is not None else random.randrange(1 << 32)
        try:
            count = with_mutator(name, options.seconds, seed)
        except Exception:
            failed += 1
            traceback.print_exc()
            print(f"{name}: FAILED (seed {seed})")
        else:
            print(f"{name}: {count} inputs in {time.monotonic() - started:.0f} s, ok")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
