"""Verifies a translation: the original and quicedge side by side."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from quicedge.migrate.report import Translation
from quicedge.migrate.verify.addresses import Ports
from quicedge.migrate.verify.differences import Comparison
from quicedge.migrate.verify.edge import EdgeConfiguration
from quicedge.migrate.verify.material import Material
from quicedge.migrate.verify.noise import Noise
from quicedge.migrate.verify.original import Original
from quicedge.migrate.verify.origins import Origins
from quicedge.migrate.verify.player import Player
from quicedge.migrate.verify.request_file import read_requests
from quicedge.migrate.verify.sample_list import Made
from quicedge.migrate.verify.verdict import Verdict

_ENDING = (signal.SIGTERM, signal.SIGHUP)


OpenOriginal = Callable[[Path, Path, Origins, Material, Ports], Original]
"""Makes the original of a configuration file, in a directory, before origins, with throw-away
files, on some of the ports."""


def verify(
    path: Path,
    translation: Translation,
    open_original: OpenOriginal,
    requests: Path | None = None,
) -> Verdict:
    """Play requests to the edge with the configuration at `path` and to quicedge with its
    translation; `requests` is a file of them, otherwise they are made from the configuration.

    Raises SourceError, RequestFileError and EdgeError. All processes and files are gone afterwards.
    """
    given = None if requests is None else read_requests(requests)
    with _unwound_by_signals(), tempfile.TemporaryDirectory(prefix="quicedge-verify-") as name:
        directory = Path(name)
        material = Material(directory)
        with (
            contextlib.closing(Ports()) as ports,
            contextlib.closing(Origins(material.server_context())) as for_original,
            contextlib.closing(Origins(material.server_context())) as for_quicedge,
        ):
            original = open_original(path, directory, for_original, material, ports)
            ours = EdgeConfiguration(
                translation.document.as_dict(), directory, path.resolve().parent, for_quicedge,
                material, ports,
            )  # fmt: skip
            made = original.samples() if given is None else Made.of(given)
            stop = threading.Event()
            with (
                original.process() as first,
                ours.process() as second,
                ThreadPoolExecutor(2) as pool,
                _set_at_exit(stop),
            ):
                first.wait_until_ready()
                second.wait_until_ready()
                players = [
                    Player(one, origins, material.client, stop, settles=original.settles)
                    for one, origins in ((original, for_original), (ours, for_quicedge))
                ]
                played = [pool.submit(one.outcomes, made.samples) for one in players]
                outcomes = list(zip(*(one.result() for one in played), strict=False))
            original.ended()
            noise = Noise(
                {**for_original.names, **original.names}, {**for_quicedge.names, **ours.names}
            )
            comparison = Comparison(noise, original.upstream_names())
            announcements = original.announcements(translation)
            return Verdict.of(made, outcomes, comparison, announcements, original.handled_by)


@contextlib.contextmanager
def _set_at_exit(event: threading.Event) -> Iterator[None]:
    """However the block is left, threads that look at the event end."""
    try:
        yield
    finally:
        event.set()


@contextlib.contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Signals that would end the process at once end it in order, as Ctrl-C does."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {number: signal.signal(number, leave) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
