"""The software bill of materials of a package, in CycloneDX 1.5: what is in it, by its wheels' digests."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name, parse_wheel_filename

from deploy.debian.lock import Locked
from policies.model.errors import Unavailable


def bill(name: str, requirements: Sequence[Locked], wheels: Path, moment: int) -> str:
    """Return the bill of the package of that name, made of the wheels of these requirements.

    Raises:
        Unavailable: The wheel of one is not there.
    """
    files = {_of_wheel(path): path for path in sorted(wheels.glob("*.whl"))}
    components = [_component(one, files) for one in requirements]
    itself = {
        "type": "application",
        "bom-ref": name,
        "name": name,
        "version": version("penstock"),
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": itself,
        },
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": sorted(one["bom-ref"] for one in components)}],
    }
    # Its number is made of what it says, so that the same package has the same bill.
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return json.dumps({**document, "serialNumber": f"urn:uuid:{number}"}, indent=2, sort_keys=True) + "\n"


def _component(one: Locked, files: "dict[tuple[str, str], Path]") -> dict[str, Any]:
    name = canonicalize_name(one.name)
    wheel = files.get((name, one.version))
    if wheel is None:
        raise Unavailable(f"there is no wheel of {one.name} {one.version} to take the digest of")
    place = f"pkg:pypi/{name}@{one.version}"
    return {
        "type": "library",
        "bom-ref": place,
        "name": name,
        "version": one.version,
        "purl": place,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(wheel.read_bytes()).hexdigest()}],
        "properties": [{"name": "penstock:wheel", "value": wheel.name}],
    }


def _of_wheel(path: Path) -> tuple[str, str]:
    name, found, _, _ = parse_wheel_filename(path.name)
    return str(name), str(found)
