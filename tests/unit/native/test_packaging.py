"""The package builds with and without cargo; its source distribution holds all of the core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, without a core."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignore = shutil.ignore_patterns("target", "__pycache__", "*.so", "build.log")
    for name in ("native", "quicedge"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    return copy


def setup(tree: Path, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "setup.py", *arguments], cwd=tree, capture_output=True, text=True,
        timeout=100, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_source_distribution_holds_the_sources_and_locked_versions(tree: Path) -> None:
    setup(tree, "-q", "sdist", "--dist-dir", "dist")
    (archive,) = (tree / "dist").iterdir()
    with tarfile.open(archive) as content:
        names = {name.partition("/")[2] for name in content.getnames()}
    sources = {f"native/src/{path.name}" for path in (ROOT / "native/src").glob("*.rs")}
    assert sources
    assert {"setup.py", "native/Cargo.toml", "native/Cargo.lock", *sources} <= names
    assert not [name for name in names if name.endswith(".so")]


def test_without_cargo_the_package_is_built_without_the_core(tree: Path, tmp_path: Path) -> None:
    output = setup(tree, "build", "--build-base", str(tmp_path), PATH="/nowhere", QUICEDGE_PURE="")
    assert "without the compiled core" in output
    assert (tmp_path / "lib/quicedge/native.py").exists()
    assert not list(tmp_path.rglob("_native*.so"))


def test_the_variable_leaves_the_core_out(tree: Path, tmp_path: Path) -> None:
    cargo = tmp_path / "cargo"
    cargo.write_text("#!/bin/sh\necho called >&2\nexit 1\n")
    cargo.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    output = setup(tree, "build", "--build-base", str(tmp_path / "b"), PATH=path, QUICEDGE_PURE="1")
    assert "called" not in output


def test_a_core_that_cannot_be_built_does_not_stop_the_installation(
    tree: Path, tmp_path: Path
) -> None:
    for name in ("cargo", "rustc"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho broken toolchain >&2\nexit 1\n")
        program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    setup(tree, "build", "--build-base", str(tmp_path / "b"), PATH=path, QUICEDGE_PURE="")
    (lib,) = (tmp_path / "b").glob("lib*")
    assert (lib / "quicedge/native.py").exists()
    assert not list(lib.rglob("_native*.so"))


def test_no_binary_is_in_the_repository() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    listed = subprocess.run(
        ["git", "ls-files", "native", "quicedge"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    ).stdout.split()  # fmt: skip
    assert "native/Cargo.lock" in listed
    assert not [name for name in listed if name.endswith((".so", ".a", ".o", ".whl"))]
