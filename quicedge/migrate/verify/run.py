"""Verifies a translation of nginx's configuration: both edges side by side."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from quicedge.migrate.nginx.source import Directive, read
from quicedge.migrate.report import Translation
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.differences import Comparison
from quicedge.migrate.verify.edge import EdgeConfiguration
from quicedge.migrate.verify.locations import chain_for
from quicedge.migrate.verify.material import Material
from quicedge.migrate.verify.message import Outcome, Sample
from quicedge.migrate.verify.nginx import NginxConfiguration, find_nginx, prefixes_of, walk
from quicedge.migrate.verify.noise import Noise
from quicedge.migrate.verify.origins import Origins
from quicedge.migrate.verify.player import Player
from quicedge.migrate.verify.request_file import read_requests
from quicedge.migrate.verify.samples import Made, make_samples
from quicedge.migrate.verify.verdict import Verdict

_ENDING = (signal.SIGTERM, signal.SIGHUP)


def verify(path: Path, translation: Translation, requests: Path | None = None) -> Verdict:
    """Play requests to nginx with the configuration at `path` and to quicedge with its translation;
    `requests` is a file of them, otherwise they are made from the configuration.

    Raises SourceError, RequestFileError and EdgeError. All processes and files are gone afterwards.
    """
    nginx = find_nginx()
    given = None if requests is None else read_requests(requests)
    with _unwound_by_signals(), tempfile.TemporaryDirectory(prefix="quicedge-verify-") as name:
        directory = Path(name)
        material = Material(directory)
        with (
            contextlib.closing(Origins(material.server_context())) as for_nginx,
            contextlib.closing(Origins(material.server_context())) as for_quicedge,
        ):
            source = read(path).top
            prefixes, has_realip = prefixes_of(nginx, path)
            original = NginxConfiguration(
                source, directory, prefixes, for_nginx, material, has_realip=has_realip
            )
            ours = EdgeConfiguration(
                translation.document.as_dict(), directory, prefixes.conf, for_quicedge, material
            )
            made = _samples(source, original) if given is None else Made(given, [])
            settles = any(one.name == "mirror" for top in source for one in walk(top))
            stop = threading.Event()
            with (
                original.process(nginx) as first,
                ours.process() as second,
                ThreadPoolExecutor(2) as pool,
                _set_at_exit(stop),
            ):
                first.wait_until_ready()
                second.wait_until_ready()
                players = [
                    Player(original, for_nginx, stop, settles=settles),
                    Player(ours, for_quicedge, stop, settles=settles),
                ]
                played = [pool.submit(one.outcomes, made.samples) for one in players]
                outcomes = list(zip(*(one.result() for one in played), strict=False))
            handled = original.handled()
            noise = Noise(
                {**for_nginx.names, **original.listeners.names},
                {**for_quicedge.names, **ours.names},
            )
            comparison = Comparison(noise, _upstream_names(source, original))
            announcements = Announcements(translation.report, translation.notes, source)
            return Verdict.of(
                made, outcomes, comparison, announcements,
                lambda sample, outcome: _handled_by(handled, sample, outcome),
            )  # fmt: skip


def _samples(source: Sequence[Directive], original: NginxConfiguration) -> Made:
    http = next((one for one in source if one.name == "http"), None)
    block = http or Directive("http", [], "", 0, list(source))
    return make_samples(block, original.listeners)


def _handled_by(
    handled: Mapping[tuple[str, int], tuple[Directive, ...]], sample: Sample, outcome: Outcome
) -> tuple[Directive, ...]:
    """The blocks that a request went through at nginx: those it ended in, and the locations that
    it came to first, before any internal redirect."""
    blocks = handled.get(outcome.response.client, ())
    server = next((one for one in blocks if one.name == "server"), None)
    return blocks if server is None else (*blocks, *chain_for(server, sample.path))


def _upstream_names(source: Sequence[Directive], original: NginxConfiguration) -> dict[str, str]:
    """A name for each address of an upstream; backup servers have their own, because they are not
    to be asked."""
    names: dict[str, str] = {}
    for top in source:
        for directive in walk(top):
            if directive.name == "upstream" and directive.args:
                for server in directive.body:
                    if server.name == "server" and "backup" not in server.args:
                        names.setdefault(original.address_of(server), directive.args[0])
    return names


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
