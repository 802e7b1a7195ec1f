"""Builds the compiled core (`native/`) where cargo is; goes on without it where it is not.

Everything else about the package is in pyproject.toml. `QUICEDGE_PURE=1` leaves the core out, as it
does at run time.
"""

from __future__ import annotations

import os
import shutil

from setuptools import setup
from setuptools_rust import Binding, RustExtension

wanted = os.environ.get("QUICEDGE_PURE", "0") in ("", "0")
possible = shutil.which(os.environ.get("CARGO", "cargo")) is not None
if wanted and not possible:
    print("quicedge: no cargo: installing without the compiled core")

core = RustExtension(
    "quicedge._native",
    path="native/Cargo.toml",
    binding=Binding.PyO3,
    args=["--locked"],
    debug=False,  # an editable install too
    optional=True,  # a build that fails is reported, and Python runs in its place
    py_limited_api=True,
)
if wanted and possible:
    # One wheel for every Python from 3.11 on.
    setup(rust_extensions=[core], options={"bdist_wheel": {"py_limited_api": "cp311"}})
else:
    setup()
