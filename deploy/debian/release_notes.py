"""What a package says of itself on a host: its licence, and its changelog in Debian's form."""

import gzip
from email.utils import formatdate
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: penstock

Files: *
Copyright: 2026 the contributors of penstock
License: Apache-2.0
 On Debian systems the text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.

Files: usr/lib/*/lib/*
Copyright: their own authors
License: of-each-component
 The Python packages beside penstock's own have their licences in their .dist-info folders;
 sbom.cdx.json in this folder names each with its version and digest.
"""


def write(name: str, tree: Path, moment: int, maintainer: str) -> None:
    """Write the package's documents below this root."""
    folder = tree / "usr/share/doc" / name
    folder.mkdir(parents=True)
    (folder / "copyright").write_text(COPYRIGHT)
    entry = (
        f"{name} ({version('penstock')}) stable; urgency=medium\n\n"
        "  * CHANGELOG.md.gz beside this file has what changes for people.\n\n"
        f" -- {maintainer}  {formatdate(moment)}\n"
    )
    for path, text in (("changelog.gz", entry), ("CHANGELOG.md.gz", (ROOT / "CHANGELOG.md").read_text())):
        (folder / path).write_bytes(gzip.compress(text.encode(), mtime=0))
