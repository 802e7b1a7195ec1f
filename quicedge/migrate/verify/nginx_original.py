"""nginx as the original of a verification."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from quicedge.migrate.nginx.source import Directive, read
from quicedge.migrate.nginx.world import walk
from quicedge.migrate.report import Translation
from quicedge.migrate.verify.addresses import Ports
from quicedge.migrate.verify.announcements import Announcements
from quicedge.migrate.verify.locations import chain_for
from quicedge.migrate.verify.material import Material
from quicedge.migrate.verify.message import Outcome, Sample
from quicedge.migrate.verify.nginx import NginxConfiguration, find_nginx, prefixes_of
from quicedge.migrate.verify.origins import Origins
from quicedge.migrate.verify.process import EdgeProcess
from quicedge.migrate.verify.sample_list import Made
from quicedge.migrate.verify.samples import make_samples


class NginxOriginal:
    """Raises EdgeError if there is no nginx, and SourceError."""

    def __init__(
        self, path: Path, directory: Path, origins: Origins, material: Material, ports: Ports
    ) -> None:
        self._nginx = find_nginx()
        self._source = read(path).top
        prefixes, has_realip = prefixes_of(self._nginx, path)
        self._configuration = NginxConfiguration(
            self._source, directory, prefixes, origins, material, ports, has_realip=has_realip
        )
        self.port_for = self._configuration.listeners.port_for
        self._handled: Mapping[tuple[str, int], tuple[Directive, ...]] = {}

    @property
    def names(self) -> Mapping[int, str]:
        return self._configuration.listeners.names

    @property
    def settles(self) -> bool:
        return any(one.name == "mirror" for one in walk(self._source))

    def process(self) -> EdgeProcess:
        return self._configuration.process(self._nginx)

    def tls_port_for(self, sample: Sample) -> int | None:
        return None  # Its own redirects are among what is compared.

    def samples(self) -> Made:
        http = next((one for one in self._source if one.name == "http"), None)
        block = http or Directive("http", [], "", 0, list(self._source))
        return make_samples(block, self._configuration.listeners)

    def upstream_names(self) -> dict[str, str]:
        """Backup servers have names of their own, because they are not to be asked."""
        names: dict[str, str] = {}
        for directive in walk(self._source):
            if directive.name == "upstream" and directive.args:
                for server in directive.body:
                    if server.name == "server" and "backup" not in server.args:
                        address = self._configuration.address_of(server)
                        names.setdefault(address, directive.args[0])
        return names

    def announcements(self, translation: Translation) -> Announcements:
        return Announcements(translation.report, translation.notes, self._source)

    def ended(self) -> None:
        self._handled = self._configuration.handled()

    def handled_by(self, sample: Sample, outcome: Outcome) -> Iterable[Directive]:
        """The blocks that a request ended in, and the locations that it came to first, before any
        internal redirect."""
        blocks = self._handled.get(outcome.response.client, ())
        server = next((one for one in blocks if one.name == "server"), None)
        return blocks if server is None else (*blocks, *chain_for(server, sample.path))
