"""strongSwan in the lab."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from orchestrator.publishing.tree import collect
from policies.model.errors import BadInput

PROGRAMS = ("usr/lib/ipsec/charon", "usr/sbin/swanctl", "usr/bin/dash")
"""charon, what loads its connections, and what starts both."""
PLUGINS = (
    *("random", "nonce", "openssl", "pem", "pubkey", "pkcs1", "pkcs8", "x509", "constraints", "kdf"),
    *("kernel-libipsec", "kernel-netlink", "socket-default", "vici"),
)
"""What the template has it load; where openssl derives keys, as from 6.0 on, there is no `kdf`."""


def collected(root: Path, into: Path) -> str:
    """Make a tree of the root's strongSwan; return its version.

    Raises:
        BadInput: it does not run here.
    """
    if into.exists():
        shutil.rmtree(into)
    named = [f"usr/lib/ipsec/plugins/libstrongswan-{name}.so" for name in PLUGINS]
    plugins = [path for path in named if (root / path).is_file() or not path.endswith("-kdf.so")]
    # What ends a thread asks for it by name, so that no program's own needs tell.
    ends_threads = [str(path.relative_to(root)) for path in root.glob("usr/lib/*/libgcc_s.so.1")]
    collect(root, into, PROGRAMS, [*plugins, *ends_threads])
    (into / "usr/bin/sh").symlink_to("dash")
    (into / "var").mkdir()
    (into / "var/run").symlink_to("../run/penstock")  # where charon insists on writing its pid
    config = into / "etc/penstock/empty"  # without any it says nothing
    config.touch()
    done = subprocess.run(
        ["chroot", str(into), f"/{PROGRAMS[0]}", "--version"],
        env={**os.environ, "STRONGSWAN_CONF": "/etc/penstock/empty"},
        text=True,
        capture_output=True,
        check=False,
    )
    config.unlink()
    found = re.search(r"strongSwan (\d[\w.]*)", done.stdout)
    if not found:
        said = (done.stdout + done.stderr).strip()[:200]
        raise BadInput(f"{into}: its charon does not run here: {said or 'no output'}")
    return found[1]
