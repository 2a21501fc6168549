"""Files of keys for an API and for relays that lie apart from the worker."""

import os
from pathlib import Path

from activities.drivers.private_files import write_private
from orchestrator.engine.keys import MasterKeys, read_keys
from orchestrator.enrolment.authority import Authority, fingerprint_of
from orchestrator.relay.task_tokens import read_token_keys
from policies.model.errors import BadInput


def write_api_keys(masters: Path, file: Path) -> tuple[str, ...]:
    """Write the payload keys of an API, made of the master keys; return their names.

    A file that is there keeps its owner. The master keys belong to the worker's user.

    Raises:
        BadInput: The master keys cannot be read, or the file cannot be written.
    """
    worker = masters.stat().st_uid if masters.exists() else None
    made = MasterKeys(read_keys(masters, of=worker))
    try:
        owner = file.stat() if file.exists() else None
        write_private(file, made.lines_for_api().encode())
        if owner is not None and os.geteuid() == 0:
            os.chown(file, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}; check path and rights") from error
    return made.names


def write_relay_keys(folder: Path) -> str:
    """Have the authority of gateways and the relay key in this folder; return the authority's fingerprint.

    What is there stays.

    Raises:
        BadInput: They cannot be made, or what is there cannot be used.
    """
    authority = Authority.open(folder)
    read_token_keys(folder / "relay.key")
    return fingerprint_of(authority.certificate)
