"""Which Python build quicedge is measured on; optimised builds are preferred.

An interpreter built without profile-guided optimisation costs 5 to 20 % more on every load, so a
benchmark has to say which one it ran on.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.proxies import ROOT

_DESCRIBE = """
import json, platform, sys, sysconfig
arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
# Distributions build with profile-guided optimisation, but do not all say so.
optimized = "--enable-optimizations" in arguments or sys.base_prefix == "/usr"
print(json.dumps([platform.python_version(), optimized, sys.base_prefix == "/usr"]))
"""
_CANDIDATES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")


@dataclass(frozen=True)
class Build:
    """An interpreter that has quicedge installed."""

    executable: str
    version: str
    optimized: bool
    distribution: bool

    def __str__(self) -> str:
        source = "distribution" if self.distribution else "local"
        optimization = "with" if self.optimized else "without"
        return f"Python {self.version} ({source} build, {optimization} optimizations)"


def inspect(executable: str) -> Build:
    """Describe an interpreter; raises OSError or CalledProcessError if it cannot run."""
    done = subprocess.run([executable, "-c", _DESCRIBE], capture_output=True, text=True, check=True)
    number, optimized, distribution = json.loads(done.stdout)
    return Build(executable, number, optimized, distribution)


def add(build: Build, *names: str) -> None:
    """Install packages of this environment for another interpreter, in the same versions."""
    if build.executable != sys.executable:
        packages = [f"{name}=={version(name)}" for name in names]
        command = [build.executable, "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(command, check=True, capture_output=True)


def preferred() -> Build:
    """This interpreter if it is optimised, else an optimised one, else this one.

    quicedge is installed into a virtual environment of the other one under `build/`.
    """
    own = inspect(sys.executable)
    if own.optimized:
        return own
    for path in _interpreters():
        try:
            found = inspect(path)
            if found.optimized and tuple(map(int, found.version.split(".")[:2])) >= (3, 11):
                return inspect(_installed(path, found.version))
        except (OSError, subprocess.CalledProcessError):
            continue  # a version manager's placeholder, or no `venv` package
    return own


def _interpreters() -> list[str]:
    """Interpreters in PATH and in /usr/bin, which a version manager may hide."""
    found = [shutil.which(name, path=where) for where in (None, "/usr/bin") for name in _CANDIDATES]
    return list(dict.fromkeys(path for path in found if path is not None))


def _installed(path: str, version: str) -> str:
    """An interpreter like `path` in an environment that has this checkout installed."""
    environment = ROOT / "build" / f"bench-python{version}"
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([path, "-m", "venv", environment], check=True, capture_output=True)
    _pip_install(python)
    return str(python)


def _pip_install(python: Path) -> None:
    command = [python, "-m", "pip", "install", "--quiet", "--editable", str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
