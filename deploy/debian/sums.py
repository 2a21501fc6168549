"""SHA256SUMS of what was made, and its signature by OpenPGP when a key is named."""

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from policies.model.errors import Unavailable

NAME = "SHA256SUMS"


def write(made: Sequence[Path], key: str | None) -> list[Path]:
    """Write the sums beside the files, sign them with this key of gpg, and return what was written.

    Raises:
        Unavailable: gpg cannot sign with the key.
    """
    folder = made[0].parent
    sums, signature = folder / NAME, folder / f"{NAME}.asc"
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(made)]
    sums.write_text("".join(lines))
    signature.unlink(missing_ok=True)  # that of other sums
    if key is None:
        return [sums]
    command = ["gpg", "--batch", "--yes", "--local-user", key, "--armor", "--detach-sign", "--output"]
    try:
        done = subprocess.run([*command, signature, sums], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable("gpg is not here; apt-get install gpg, or sign SHA256SUMS elsewhere") from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Unavailable(f"gpg does not sign with {key}: {last[0]}")
    return [sums, signature]
