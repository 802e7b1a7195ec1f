"""Input that a command cannot use."""

from __future__ import annotations

import click


class Refused(click.ClickException):
    """A file or setting that is wrong, with the exit code of wrong options."""

    exit_code = 2
