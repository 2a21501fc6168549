"""Find private keys and other secrets in what is to be published: a release is read by many.

What counts is a secret that lies in the tree, or stands in a file of it, by mistake: keys of every kind,
shared keys of OpenVPN, stores of keys, hashes of users' passwords, secrets by which logins are asked for
elsewhere (`login_files`). Compiled programs are not looked at:
libraries of cryptography carry whole keys, with which they test themselves.
"""

import base64
import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from activities.drivers.daemon.products import SECRETS as SECRETS_OF_DAEMONS
from activities.drivers.daemon.template import CREDENTIAL, SECRET
from orchestrator.publishing.linking import MAGIC
from orchestrator.publishing.login_files import login_secret_in
from orchestrator.publishing.option_files import OptionFiles
from policies.model.errors import BadInput

_END = rb"(?:\r?\n|\\r\\n|\\n)"
"""How a line ends; in JSON and the like, a key stands in one line of text."""
PEM = re.compile(
    rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?|PKCS12|OpenVPN Static key V1"
    rb"|OpenVPN tls-crypt-v2 (?:server|client) key|OpenVPN auth-token server key)-----[ \t]*" + _END + rb"(?:"
    rb"[ \t]*[A-Za-z-]+: [^\n]*\n|[ \t]*" + _END + rb"){0,16}"
    rb"[ \t]*[A-Za-z0-9+/=]{24}"
)
ENCODED = re.compile(rb"LS0tLS1CRUdJTi(?:[A-Za-z0-9+/]|\s{1,80}(?=[A-Za-z0-9+/=])|\\n){40,}")
"""A PEM file in base64, as kubeconfig and Secrets of Kubernetes have it: `-----BEGIN `."""
SSH2 = re.compile(rb"^---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----", re.MULTILINE)
PUTTY = re.compile(rb"^PuTTY-User-Key-File-[0-9]+: ", re.MULTILINE)
AGE = re.compile(rb"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b")
WIREGUARD = re.compile(rb"^[ \t]*PrivateKey[ \t]*=[ \t]*[A-Za-z0-9+/]{43}=", re.MULTILINE)
JWK = re.compile(rb'"d"\s*:\s*"[A-Za-z0-9_-]{40,}"')
INLINE = re.compile(
    rb"^[ \t]*<(key|pkcs12|secret|tls-auth|tls-crypt|tls-crypt-v2|auth-user-pass|http-proxy-user-pass)>"
    rb"[ \t]*\r?\n"
    rb"(?:[ \t]*(?:[#;][^\n]*)?\r?\n)*(?![ \t]*(?:</|\[inline\]))[ \t]*[^\s#;]",
    re.MULTILINE,
)
"""An inline file of OpenVPN that is a secret whatever it looks like."""
HASHES = re.compile(
    rb"^[^:\s#][^:\n]*:(?:(?:[^:\n]*:)?(?:\$(?:apr1|argon2(?:i|d|id)|scrypt|1|2[abxy]?|5|6|7|y|gy)\$"
    rb"[./A-Za-z0-9$=,+-]{20,}|\{S?(?:SHA|MD5)\d{0,3}\}[A-Za-z0-9+/]{20,}=*)(?::[^\n]*)?|[^:\n]+:[0-9a-f]{32})\r?$",
    re.MULTILINE,
)
"""A line of ocpasswd(8), htpasswd(1), htdigest(1) or shadow(5): a name, and the hash of its password."""
SECRETS = (
    (SSH2, "SSH2 private key"),
    (PUTTY, "PuTTY private key"),
    (AGE, "age secret key"),
    (WIREGUARD, "WireGuard private key"),
    (HASHES, "hashes of passwords"),
)
KEY_STORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
"""How Java's stores of keys and certificates begin."""
HAS_A_KEY = b"\0\0\0\1"
"""Where the first entry of such a store is a private key; of a store of authorities none is."""
LARGEST_SETTINGS = 1 << 20
"""Bytes of a file of settings."""
BOM = b"\xef\xbb\xbf"
WIDE = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
"""How text of two bytes a character begins, as Windows writes it."""
MOST_BLANKS = 80
"""Blanks in a row that are looked at: patterns try each of them as a beginning, and then all that follow."""
LONG_BLANKS = re.compile(rb"[ \t\r\f\v]{%d,}" % (MOST_BLANKS + 1))
LARGEST_DER = 1 << 16
"""Bytes of a key's file that is not text; an RSA key of 16,384 bits has 9,000."""
LARGEST_IMAGE = 1 << 30
"""Bytes of an archive's content that are looked through: more is taken for an attack."""
LARGEST_COMPRESSED = 1 << 26
"""Bytes of one file that is compressed and no archive."""
TOO_LARGE = "more is inside than is looked through"
DEEPEST = 3
"""Archives in archives: an image holds its layers in one."""
COMPRESSED: Mapping[bytes, Callable[[io.BytesIO], io.BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_NAMED = 10
"""Keys that a sentence names; more are counted."""


def keys_in(content: bytes, name: str, files: OptionFiles | None = None) -> Iterator[str]:
    """Yield the place and kind of every private key in a file, also in archives such as images.

    A place in an archive is written `image.tar!etc/server.key`.

    Args:
        content: The file.
        name: Where it is.
        files: The files of the tree that it is in, whose passwords are found when all of them are read.
    """
    of_archive = OptionFiles() if files is None else files
    yield from _keys_in(content, name, 0, of_archive)
    if files is None:
        yield from of_archive.found()


def _keys_in(content: bytes, name: str, depth: int, files: OptionFiles) -> Iterator[str]:
    if content.startswith(MAGIC):
        return
    wide = next((encoding for mark, encoding in WIDE if content.startswith(mark)), None)
    text = content[2:].decode(wide, "replace").encode() if wide else content.removeprefix(BOM)
    text = text if b"\0" in text else LONG_BLANKS.sub(b" " * MOST_BLANKS, text)
    kind = _kind(text) or _kind_of_daemons(name, text) or login_secret_in(name, text)
    files.read(name, text, is_found=kind is not None)
    if kind:
        yield f"{name} ({kind})"
    elif depth < DEEPEST:
        yield from _inside(content, name, depth, files)


def _kind(content: bytes) -> str | None:
    """Return what kind of secret a file is or holds, None for none."""
    if found := PEM.search(content):
        label = found[1].decode()
        return label if label.startswith("OpenVPN") else label.lower()
    if found := INLINE.search(content):
        return f"inline <{found[1].decode()}>"
    if content.startswith(KEY_STORES) and content[12:16] == HAS_A_KEY:
        return "Java key store"
    if content.startswith(b"0") and len(content) <= LARGEST_DER and (kind := _der_kind(content)):
        return kind
    if b'"kty"' in content and JWK.search(content):
        return "JSON private key"
    plain = (kind for pattern, kind in SECRETS if pattern.search(content))
    encoded = filter(None, map(_kind, _decoded(content)))
    return next(chain(plain, encoded), None)


def _decoded(content: bytes) -> Iterator[bytes]:
    """Yield what PEM files stand in a text in base64."""
    for found in ENCODED.finditer(content):
        encoded = re.sub(rb"\s|\\n", b"", found[0])
        yield base64.b64decode(encoded[: len(encoded) // 4 * 4])


def _kind_of_daemons(name: str, content: bytes) -> str | None:
    """Return what kind of secret that only one daemon has is in a file of this name, None for none."""
    if len(content) > LARGEST_SETTINGS or b"\0" in content:
        return None
    text = content.decode(errors="replace")
    return next(filter(None, (find(name, text) for find in SECRETS_OF_DAEMONS)), None)


def refuse_keys(found: Iterable[str]) -> None:
    """Refuse what holds secrets, all of them named at once.

    Raises:
        BadInput: there is one.
    """
    if keys := list(found):
        named = ", ".join(keys[:_NAMED])
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        raise BadInput(
            f"a release is read by many, and has secrets in {named}{more}; take them out, and have the "
            f"template name each file as ${CREDENTIAL}NAME, or each value as ${SECRET}NAME"
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


def _inside(content: bytes, name: str, depth: int, files: OptionFiles) -> Iterator[str]:
    """Look through an archive, or what one file was compressed to."""
    if content.startswith(b"PK\x03\x04"):
        yield from _in_a_zip(content, name, depth, files)
    elif content[257:262] == b"ustar" or content.startswith(tuple(COMPRESSED)):
        yield from _in_a_tar(content, name, depth, files)


def _in_a_tar(content: bytes, name: str, depth: int, files: OptionFiles) -> Iterator[str]:
    left = LARGEST_IMAGE
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:*") as archive:
            for entry in archive:
                left -= entry.size
                if left < 0:
                    yield f"{name} ({TOO_LARGE})"
                    return
                file = archive.extractfile(entry) if entry.isreg() else None
                if file is not None:
                    yield from _keys_in(file.read(), f"{name}!{entry.name}", depth + 1, files)
    except (tarfile.TarError, OSError, EOFError, ValueError):
        yield from _compressed(content, name, depth, files)


def _compressed(content: bytes, name: str, depth: int, files: OptionFiles) -> Iterator[str]:
    """Look into one file that is compressed and no archive, such as documentation."""
    opens = next((opens for magic, opens in COMPRESSED.items() if content.startswith(magic)), None)
    if opens is None:
        return
    try:
        with opens(io.BytesIO(content)) as file:
            plain = file.read(LARGEST_COMPRESSED + 1)
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error):
        return
    if len(plain) > LARGEST_COMPRESSED:
        yield f"{name} ({TOO_LARGE})"
    else:
        yield from _keys_in(plain, f"{name}!", depth + 1, files)


def _in_a_zip(content: bytes, name: str, depth: int, files: OptionFiles) -> Iterator[str]:
    left = LARGEST_IMAGE
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for entry in archive.infolist():
                left -= entry.file_size
                if left < 0:
                    yield f"{name} ({TOO_LARGE})"
                    return
                yield from _keys_in(archive.read(entry), f"{name}!{entry.filename}", depth + 1, files)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error, NotImplementedError):
        return  # broken, or locked by a password
