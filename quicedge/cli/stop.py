"""`quicedge stop`: drain and end a running edge."""

from __future__ import annotations

import subprocess

import click

from quicedge.admin.command_messages import Command
from quicedge.cli.command_client import ask, control_options, show

SYSTEMCTL_TIMEOUT = 5.0
"""Seconds that systemd has to say why it stops us; the stop itself has to go on."""


@click.command()
@control_options
@click.option("--now", is_flag=True, help="Do not wait for requests in progress.")
@click.option(
    "--systemd",
    "unit",
    metavar="UNIT",
    help="If systemd restarts this unit, leave the workers to the edge that it starts next.",
)
def command(config: str | None, path: str | None, now: bool, unit: str | None) -> None:
    """Stop a running edge; wait until it has ended."""
    if unit is not None and not now and is_restarting(unit):
        wanted = Command.LEAVE
    else:
        wanted = Command.STOP_NOW if now else Command.STOP
    show(ask(wanted, config, path, until_end=True))


def is_restarting(unit: str) -> bool:
    """Whether systemd stops the unit only to start it again; False when it does not say."""
    try:
        done = subprocess.run(
            ["systemctl", "list-jobs", "--no-legend", "--plain"],
            capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    jobs = (line.split() for line in done.stdout.splitlines())
    return any(job[1:3] == [unit, "restart"] for job in jobs)
