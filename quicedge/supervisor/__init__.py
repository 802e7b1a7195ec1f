"""The parent process: owns the listening sockets, starts workers, handles signals."""

from quicedge.supervisor.service import run

__all__ = ["run"]
