"""What a verification asks of the edge whose configuration was translated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from quicedge.migrate.nginx.source import Directive
from quicedge.migrate.report import Translation
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.message import Outcome, Sample
from quicedge.migrate.verify.player import Entrance
from quicedge.migrate.verify.process import EdgeProcess
from quicedge.migrate.verify.sample_list import Made


class Original(Entrance, Protocol):
    """An edge with its configuration, on addresses of its own."""

    @property
    def names(self) -> Mapping[int, str]:
        """The port, as in `:443`, that each local one stands for."""
        ...

    @property
    def settles(self) -> bool:
        """Whether origins may see a request after its client has got the response."""
        ...

    def process(self) -> EdgeProcess: ...

    def samples(self) -> Made:
        """Requests made from the configuration."""
        ...

    def upstream_names(self) -> dict[str, str]:
        """A name for each address of an upstream of several servers."""
        ...

    def announcements(self, translation: Translation) -> Announcements: ...

    def ended(self) -> None:
        """Called when all samples have been played."""
        ...

    def handled_by(self, sample: Sample, outcome: Outcome) -> Iterable[Directive]:
        """The blocks of the configuration that a request went through, as far as they are known."""
        ...
