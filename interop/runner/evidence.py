"""What a finished trial left behind, as the checks read it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from interop.runner.dissection import only_client
from interop.runner.trace import Trace


class CheckFailed(Exception):
    """The endpoints did not do what the case demands; the message says what was seen."""


class CheckUnsupported(Exception):
    """The case cannot be checked without a key log."""


@dataclass(frozen=True)
class Evidence:
    """The directory of a trial: client/{downloads,logs}, server/{www,logs}, and two captures.

    `left` is the capture on the client's side of the link, `right` the one on the server's; both
    are absent on loopback.
    """

    directory: Path

    @property
    def www(self) -> Path:
        return self.directory / "server" / "www"

    @property
    def downloads(self) -> Path:
        return self.directory / "client" / "downloads"

    @cached_property
    def key_log(self) -> Path | None:
        """The client's key log, else the server's; one without handshake secrets is none."""
        for role in ("client", "server"):
            path = self.directory / role / "logs" / "keys.log"
            if path.is_file():
                text = path.read_text(errors="replace")
                if any(
                    line.startswith("SERVER_HANDSHAKE_TRAFFIC_SECRET") for line in text.splitlines()
                ):
                    return path
        return None

    @cached_property
    def left(self) -> Trace:
        return Trace(self.directory / "left.pcap", self.key_log)

    @cached_property
    def right(self) -> Trace:
        client = only_client(self.directory / "left.pcap")
        return Trace(self.directory / "right.pcap", self.key_log, client)
