"""Small release trees for tests."""

from pathlib import Path

SMALL_TEMPLATE = """tcp-port = $port
device = $device
ipv4-network = $pool4
ipv4-netmask = $netmask4
socket-file = $run/ocserv.sock
occtl-socket-file = $run/occtl.sock
server-key = $credential_key
log-level = 2
"""


def small_tree(folder: Path, *, marker: bytes = b"") -> tuple[Path, Path]:
    """Make a tree with an executable, a library and a link, and a template; return both."""
    tree = folder / "tree"
    (tree / "usr/sbin").mkdir(parents=True, exist_ok=True)
    (tree / "usr/lib").mkdir(parents=True, exist_ok=True)
    daemon = tree / "usr/sbin/ocserv"
    daemon.write_bytes(b"#!/bin/sh\nexec sleep 60\n" + marker)
    daemon.chmod(0o755)
    (tree / "bin").mkdir(exist_ok=True)
    (tree / "bin/sh").write_bytes(b"stands for the shell\n")
    (tree / "usr/lib/libexample.so.1").write_bytes(bytes(range(256)) * 400 + marker)
    link = tree / "usr/lib/libexample.so"
    if not link.is_symlink():
        link.symlink_to("libexample.so.1")
    template = folder / "ocserv.conf.template"
    template.write_text(SMALL_TEMPLATE)
    return tree, template
