"""The state of the edge in a few lines, for `quicedge status`."""

from __future__ import annotations

from collections.abc import Iterator

from quicedge.acme.status import AcmeStatus
from quicedge.admin.view import Status, WorkerStatus


def summary(status: Status) -> Iterator[str]:
    """What an operator asks first, one fact in each line."""
    yield f"quicedge {status.version}, {status.state} for {_duration(status.uptime_seconds)}"
    yield f"pid          {status.pid}"
    yield f"core         {status.core}"
    yield f"config       {status.config_path or 'command line'}"
    yield f"listening    {', '.join(item.address for item in status.listeners)}"
    yield f"connections  {status.connections}"
    for worker in status.workers:
        yield f"worker {worker.slot:<5} {_worker(worker)}"
    if status.acme is not None:
        yield from _acme(status.acme)
    yield f"reloads      {status.reloads}"
    if status.last_reload_error is not None:
        yield f"last reload  failed: {status.last_reload_error}"


def _acme(acme: AcmeStatus) -> Iterator[str]:
    served = sum(one.not_after is not None for one in acme.hosts)
    yield f"certificates {served} by ACME for {len(acme.hosts)} hosts"
    for one in acme.hosts:
        if one.error is not None:
            yield f"  {one.host}: {one.error}"


def _worker(worker: WorkerStatus) -> str:
    parts = [str(worker.state)]
    if worker.pid is not None:
        parts.append(f"pid {worker.pid}")
    if worker.stats is not None:
        parts.append(f"{worker.stats.connections} connections")
        parts.append(f"{worker.stats.requests_active} requests in progress")
    if worker.restarts:
        parts.append(f"{worker.restarts} restarts")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
