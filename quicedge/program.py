"""The program `quicedge`: its command line, or a shorter way to what service managers run.

`quicedge serve --config FILE`, with a file that can be used, has no options to parse and no
mistakes to explain: the processes of the edge do without click and `cli` then, which are a megabyte
of memory and 30 ms. Everything else is the command line's, mistakes in that file included.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quicedge.config.schema import Config


def main() -> None:
    path = config_alone(sys.argv[1:])
    config = None if path is None else _usable(path)
    if config is None:
        from quicedge.cli import main as command_line

        command_line()
    else:
        sys.exit(_serve(config, path))


def config_alone(arguments: Sequence[str]) -> str | None:
    """FILE of `serve --config FILE`; None for any other command line."""
    match arguments:
        case ["serve", "-c" | "--config", path]:
            return path
    return None


def _usable(path: str) -> Config | None:
    """A configuration; None if there is something to say about it."""
    import quicedge.lean_imports  # noqa: F401  before all others
    from quicedge.config.certificate_files import has_certificates
    from quicedge.config.loader import ConfigError, load_config

    try:
        config = load_config(path)
    except (ConfigError, OSError):
        return None
    return config if has_certificates(config.tls) else None


def _serve(config: Config, path: str | None) -> int:
    from quicedge.supervisor import run

    try:
        return run(config, path)
    except (Exception, KeyboardInterrupt) as error:
        from quicedge.cli.group import DEBUG_VARIABLE, failure

        if os.environ.get(DEBUG_VARIABLE):
            raise
        failure(error).show()
        return 1
