"""Manifests by people who sign with good keys and want a file somewhere else on the gateway's host."""

import io
import random
import tarfile
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.publishing.builder import release_statement
from policies.model.value import digest_of

EXECUTABLE = "usr/sbin/ocserv"
GOOD = ("a", "b", "c", "d", "etc", "up", "out", "usr")
NAMES = ("a", "b", "etc", "root", "up", "out", "..", ".", "", "usr", "tmp", "dev", "run", "penstock", "A")
TARGETS = (
    *("..", "../..", "../../../../../..", ".", "/etc", "a", "b/..", "a/../..", "up/../../../..", "out"),
    *("../out", "up", "up/up", "./a/../b", "../root", "dev", "a/b/c/../../../..", "out/../..", ""),
)
CONTENT = b"owned"
ODD = 0.03
"""How often a path is odd: a manifest that is refused for its first one shows nothing of the others."""


def hostile_statement(chance: random.Random) -> tuple[bytes, dict[str, bytes]]:
    """Return a statement that may be good or bad, and the blobs that it names, by digest."""
    files = {EXECUTABLE, *(_path(chance) for _ in range(chance.randrange(4)))}
    links = {_path(chance): _target(chance) for _ in range(chance.randrange(5))}
    listed = [{"path": path, "sha256": _hex(CONTENT), "size": len(CONTENT), "mode": 0o644} for path in files]
    archive = _archive(sorted(files))
    tree = {
        **_artifact("root.tar", archive),
        "unpack": "tar",
        "files": listed,
        "links": [{"path": path, "target": target} for path, target in links.items()],
    }
    template = _artifact("config/ocserv.conf.template", CONTENT)
    alone = [_artifact(_path(chance), CONTENT) for _ in range(chance.randrange(3))]
    artifacts = [tree, template, *alone]
    chance.shuffle(artifacts)
    statement = release_statement(_predicate(artifacts))
    return statement, {digest_of(blob): blob for blob in (archive, CONTENT)}


def mutated(statement: bytes, chance: random.Random) -> bytes:
    """Return the statement with some bytes changed, cut, doubled or put elsewhere."""
    content = bytearray(statement)
    for _ in range(chance.randrange(1, 4)):
        at, length = chance.randrange(len(content)), chance.randrange(1, 12)
        piece = bytes(content[at : at + length])
        match chance.randrange(4):
            case 0:
                content[at] = chance.randrange(256)
            case 1:
                del content[at : at + length]
            case 2:
                content[at:at] = piece * chance.randrange(1, 40)
            case _:
                content[chance.randrange(len(content))] = chance.choice(b'{}[]",:0\\9e-')
        content = content or bytearray(b"{")
    return bytes(content)


def _path(chance: random.Random) -> str:
    parts = [_name(chance) for _ in range(chance.randrange(1, 5))]
    start = chance.choice(("/", "root/", "usr/sbin/ocserv/")) if chance.random() < ODD else ""
    return start + "/".join(parts)


def _target(chance: random.Random) -> str:
    if chance.random() < 10 * ODD:
        return chance.choice(TARGETS)
    return "/".join(_name(chance) for _ in range(chance.randrange(1, 5)))


def _name(chance: random.Random) -> str:
    return chance.choice(NAMES if chance.random() < ODD else GOOD)


def _archive(paths: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in paths:
            entry = tarfile.TarInfo(path)
            entry.size = len(CONTENT)
            archive.addfile(entry, io.BytesIO(CONTENT))
    return out.getvalue()


def _hex(content: bytes) -> str:
    return digest_of(content).removeprefix("sha256:")


def _artifact(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "sha256": _hex(content), "size": len(content), "media_type": "text/plain"}


def _predicate(artifacts: list[dict[str, Any]]) -> dict[str, Any]:
    now = datetime.now(UTC).replace(microsecond=0)
    return {
        "product": "ocserv-gw",
        "version": "1",
        "channel": "stable",
        "rollback_index": 1,
        "serial": 1,
        "issued_at": now.isoformat(),
        "expires_at": (now + timedelta(days=30)).isoformat(),
        "platforms": [{"os": "linux", "arch": "amd64"}],
        "daemon": {"kind": "ocserv", "executable": EXECUTABLE},
        "artifacts": artifacts,
        "config_schema": {"sha256": _hex(CONTENT), "size": len(CONTENT), "version": 1},
        "config_compat": {"reads": [1, 1], "writes": 1},
        "from_versions": {"min": 0},
        "protocol_compat": ["ocserv"],
        "drain": {"min_seconds": 0, "max_seconds": 60},
        "requires_approval_for": [],
    }
