"""Find private keys in what is to be published: a release is for everybody who can read its repository.

What counts is a key of somebody's that lies in the tree by mistake. Compiled programs are not looked at:
libraries of cryptography carry whole keys, with which they test themselves.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator

from orchestrator.publishing.linking import MAGIC
from policies.model.errors import BadInput

PEM = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?)-----[ \t]*\r?\n"
    rb"(?:[A-Za-z-]+: [^\n]*\n|[ \t]*\r?\n){0,16}"
    rb"[A-Za-z0-9+/]{32}"
)
PUTTY = re.compile(rb"^PuTTY-User-Key-File-[0-9]+: ", re.MULTILINE)
LARGEST_DER = 1 << 16
"""Bytes of a key's file that is not text; an RSA key of 16,384 bits has 9,000."""
LARGEST_IMAGE = 1 << 30
"""Bytes of an archive's content that are looked through: more is taken for an attack."""
DEEPEST = 3
"""Archives in archives: an image holds its layers in one."""
_NAMED = 10
"""Keys that a sentence names; more are counted."""


def keys_in(content: bytes, name: str, depth: int = 0) -> Iterator[str]:
    """Yield the place and kind of every private key in a file, also in archives such as images.

    A place in an archive is written `image.tar!etc/server.key`.
    """
    if content.startswith(MAGIC):
        return
    if found := PEM.search(content):
        yield f"{name} ({found[1].decode().lower()})"
    elif PUTTY.search(content):
        yield f"{name} (PuTTY private key)"
    elif content.startswith(b"0") and len(content) <= LARGEST_DER and (kind := _der_kind(content)):
        yield f"{name} ({kind})"
    elif depth < DEEPEST and _is_archive(content):
        yield from _inside(content, name, depth)


def refuse_keys(found: Iterable[str]) -> None:
    """Refuse what holds private keys, all of them named at once.

    Raises:
        BadInput: there is one.
    """
    if keys := list(found):
        named = ", ".join(keys[:_NAMED])
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise BadInput(
            f"a release is read by many, and has private keys in {named}{more}; take them out, and have the "
            "template name them as $credential_NAME"
        )


def _der_kind(content: bytes) -> str | None:
    """Return what kind of key the bytes are as a whole; certificates and other DER are none."""
    from asn1crypto import pkcs12  # noqa: PLC0415 - loaded where releases are made
    from cryptography.hazmat.primitives.serialization import load_der_private_key  # noqa: PLC0415

    try:
        load_der_private_key(content, password=None)
    except TypeError:
        return "encrypted DER private key"
    except Exception:  # noqa: BLE001 - whatever cannot be read as a key by this library is none
        try:
            whole = pkcs12.Pfx.load(content, strict=True)
            return "PKCS#12" if whole["version"].native == "v3" else None
        except (ValueError, TypeError, KeyError):
            return None
    return "DER private key"


def _is_archive(content: bytes) -> bool:
    return content[257:262] == b"ustar" or content.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


def _inside(content: bytes, name: str, depth: int) -> Iterator[str]:
    left = LARGEST_IMAGE
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for entry in archive:
                left -= entry.size
                if left < 0:
                    yield f"{name} (more than {LARGEST_IMAGE >> 20} MiB inside, which nobody looks through)"
                    return
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    yield from keys_in(file.read(), f"{name}!{entry.name}", depth + 1)
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return  # compressed, and no archive: documentation, for example
