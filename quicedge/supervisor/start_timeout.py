"""How long workers may take to start, or to prepare new settings."""

from __future__ import annotations

from quicedge.config.limits import WORKER_START_TIMEOUT
from quicedge.config.schema import Config


def start_timeout(config: Config) -> float:
    """Seconds: applications that workers import and start have theirs in addition."""
    applications = [item for item in config.upstreams.values() if item.is_application]
    return WORKER_START_TIMEOUT + sum(item.startup_timeout for item in applications)
