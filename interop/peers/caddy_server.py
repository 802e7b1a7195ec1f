"""Caddy as the server of http3: a configuration made on the spot, and Caddy in this process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

UNSUPPORTED = 127


def configuration(port: str, www: str, certs: str) -> dict[str, Any]:
    server = {
        "listen": [f":{port}"],
        "protocols": ["h1", "h2", "h3"],
        "automatic_https": {"disable": True},
        "tls_connection_policies": [{}],
        "routes": [{"handle": [{"handler": "file_server", "root": www}]}],
    }
    pair = {"certificate": f"{certs}/cert.pem", "key": f"{certs}/priv.key"}
    return {
        "admin": {"disabled": True},
        "apps": {
            "http": {"servers": {"interop": server}},
            "tls": {"certificates": {"load_files": [pair]}},
        },
    }


def main() -> None:
    if (os.environ["ROLE"], os.environ["TESTCASE"]) != ("server", "http3"):
        sys.exit(UNSUPPORTED)
    made = configuration(
        os.environ.get("PORT") or "443",
        os.environ.get("WWW") or "/www",
        os.environ.get("CERTS") or "/certs",
    )
    directory = Path(tempfile.mkdtemp(prefix="interop-caddy-"))
    path = directory / "caddy.json"
    path.write_text(json.dumps(made))
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("caddy", path=f"{scripts}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        sys.exit("caddy is not installed")
    os.environ["XDG_DATA_HOME"] = os.environ["XDG_CONFIG_HOME"] = str(directory)
    os.execv(program, [program, "run", "--config", str(path)])


if __name__ == "__main__":
    main()
