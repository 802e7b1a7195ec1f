"""A group of commands, one module each, imported when the command runs."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Mapping
from typing import Any

import click

DEBUG_VARIABLE = "QUICEDGE_DEBUG"
"""When set, an unexpected error keeps its traceback: for developers, not operators."""


class CommandGroup(click.Group):
    """Imports a command's module only when that command runs, so that all start fast, and reports
    any failure in one line.

    `summaries` names the commands with a line of help each; NAME is the click command `command` of
    the module `PACKAGE.NAME`.
    """

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._package = package
        self._summaries = summaries

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            # click handles EPIPE: the reader of our output has left.
            is_broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
            if is_broken_pipe or os.environ.get(DEBUG_VARIABLE):
                raise
            raise failure(error) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._summaries:
            return None
        command: click.Command = importlib.import_module(f"{self._package}.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))


def failure(error: BaseException) -> click.ClickException:
    """What a command ends with that failed unexpectedly, or was interrupted."""
    interrupted = isinstance(error, KeyboardInterrupt)
    return click.ClickException("interrupted" if interrupted else _in_words(error))


def _in_words(error: BaseException) -> str:
    """Describe in one line why a command failed."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names, error.strerror])
    if isinstance(error, UnicodeDecodeError):
        return f"the input is not {error.encoding} text (byte {error.start})"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text} ({DEBUG_VARIABLE}=1 shows where)"
