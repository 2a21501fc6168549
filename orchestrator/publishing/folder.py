"""A folder of releases laid out by digest: what any HTTP server can offer as a repository as it is.

The layout is the one activities/drivers/source/http.py reads. Files appear whole or not at
all, and an index is pointed to only after everything it names is there.
"""

import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from policies.model.errors import BadInput
from policies.model.trust import Envelope
from policies.model.value import Digest, digest_of
from policies.trust import strict_json

LARGEST = 1 << 20
"""Bytes of a statement, a signature or a list of these; manifests have at most 64 KiB."""


def publish(
    root: Path, statement: bytes, signatures: Sequence[tuple[str, bytes]], blobs: Mapping[Digest, Path]
) -> Digest:
    """Lay a statement, its signatures and its blobs out in the folder; return the statement's digest.

    `signatures` are pairs of kind (sigstore, openpgp, cms) and content; they replace earlier ones.
    """
    digest = digest_of(statement)
    for name, path in blobs.items():
        target = place(root, "blobs", name)
        if path != target and not target.exists():
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            shutil.copyfile(path, temporary)
            temporary.replace(target)
    listed = [_signature(root, kind, content) for kind, content in signatures]
    _write(place(root, "statements", digest), statement)
    _write(_listing(root, digest), json.dumps(listed).encode())
    return digest


def add_signature(
    root: Path,
    digest: Digest,
    kind: str,
    content: bytes,
    token: bytes | None = None,
    *,
    replace: bool = False,
) -> None:
    """Add a signature to a statement in the folder; the same one again changes nothing.

    With `replace` it is the only one afterwards: a signer's that does not hold refuses the release.
    """
    path = _listing(root, digest)
    listed = strict_json.loads(_read(path)) if path.exists() and not replace else []
    entry = _signature(root, kind, content, token)
    if entry not in listed:
        _write(path, json.dumps([*listed, entry]).encode())


def offer(root: Path, product: str, channel: str, index: Digest) -> None:
    """Make an index statement in the folder the channel's current one."""
    _write(root / "channels" / product / channel, index.encode())


def read_statement(root: Path, digest: Digest) -> bytes:
    """Return a statement of the folder.

    Raises:
        BadInput: the folder has no such statement.
    """
    try:
        return _read(place(root, "statements", digest))
    except OSError as error:
        raise BadInput(f"{root} holds no statement {digest}; build the release into it first") from error


def read_blob(root: Path, digest: Digest) -> bytes:
    """Return a small blob of the folder, such as a signature or an image's manifest.

    Raises:
        BadInput: the folder lacks it, or has other bytes under its name.
    """
    try:
        content = _read(place(root, "blobs", digest))
    except OSError as error:
        raise BadInput(f"{root} lacks the blob {digest}; build the release into it again") from error
    if digest_of(content) != digest:
        raise BadInput(f"{root} has other bytes under {digest}; build the release into it again")
    return content


def offered(root: Path, product: str, channel: str) -> Digest:
    """Return the digest of the channel's current index.

    Raises:
        BadInput: the folder offers none, or the pointer to it is no digest.
    """
    pointer = root / "channels" / product / channel
    try:
        return TypeAdapter[str](Digest).validate_python(_read(pointer).decode().strip())
    except OSError as error:
        raise BadInput(f"{root} offers no index of {product}/{channel}; make one: release index") from error
    except ValueError as error:
        raise BadInput(f"{pointer} holds no digest; offer the index again: release index") from error


def read_signatures(root: Path, digest: Digest) -> tuple[Envelope, ...]:
    """Return the signatures that lie beside a statement of the folder.

    Raises:
        BadInput: the list of them is not what this module writes, or one is gone.
    """
    path = _listing(root, digest)
    try:
        return tuple(
            Envelope(
                kind=entry["kind"],
                content=_read(place(root, "blobs", entry["digest"])),
                token=_read(place(root, "blobs", entry["token"])) if "token" in entry else None,
            )
            for entry in (strict_json.loads(_read(path)) if path.exists() else [])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} or what it names cannot be read: {type(error).__name__}") from error


def place(root: Path, kind: str, digest: Digest) -> Path:
    """Return where a thing of that digest lies, its folder made."""
    path = root / kind / digest.replace(":", "/")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _listing(root: Path, digest: Digest) -> Path:
    return place(root, "signatures", digest).with_suffix(".json")


def _signature(root: Path, kind: str, content: bytes, token: bytes | None = None) -> dict[str, str]:
    """Store a signature; return its entry in the listing."""
    entry = {"kind": kind}
    for name, part in (("digest", content), ("token", token)):
        if part is not None:
            entry[name] = digest_of(part)
            _write(place(root, "blobs", entry[name]), part)
    return entry


def _read(path: Path) -> bytes:
    """Return what is in a file of the folder; others may write there, and put a pipe or anything large.

    Raises:
        BadInput: it is no file, or larger than what this module writes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise BadInput(f"{path} is no file of at most {LARGEST >> 20} MiB; look who writes to the folder")
        return file.read(LARGEST)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_bytes(content)
    temporary.replace(path)
