"""What this machine allows: the whole harness, or the loopback subset, and why."""

from __future__ import annotations

import os
import shutil

from interop.runner.topology import TopologyError, run_ip

PROGRAMS = {
    "ip": "iproute2",
    "ethtool": "ethtool",
    "tshark": "tshark",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}

ROOTLESS = (
    "; not root, but where user namespaces are allowed, this runs everything:"
    " unshare -Urmn sh -c 'mount -t tmpfs tmpfs /run && exec python3 -m interop run'"
)


def missing_for_namespaces() -> str | None:
    """None when namespaces can be made and captures read; else what is in the way."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        packages = " ".join(sorted({PROGRAMS[name] for name in absent}))
        return f"{', '.join(absent)} not installed (packages: {packages})"
    probe = f"qeprobe-{os.getpid()}"
    try:
        run_ip("netns", "add", probe)
        run_ip("-n", probe, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
    except TopologyError as error:
        return f"{error}{'' if os.geteuid() == 0 else ROOTLESS}"
    else:
        return None
    finally:
        try:
            run_ip("netns", "del", probe)
        except (TopologyError, OSError):
            pass
