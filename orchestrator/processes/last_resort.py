"""The safe direction without an API: root on the orchestrator's host holds a change or takes a fleet back.

The same service does it, in this process: authorised, audited, once for each key. It reads and writes as
the user whose the state folder is: payload keys and ledger are that user's, and root trusts no other's files.
"""

import asyncio
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Any

from orchestrator.engine.client import enter_network_namespace
from orchestrator.processes.composition import compose
from orchestrator.settings import read_settings, state_folder
from policies.model.command import CommandKind, CommandReceipt
from policies.model.way_back import RollbackAsked


def command(fleet: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    """Give the command and return its receipt; errors as the service raises them."""
    return asyncio.run(_command(fleet, body, key)).model_dump(mode="json")


async def _command(fleet: str, body: dict[str, Any], key: str) -> CommandReceipt:
    settings = read_settings(lenient=True)  # nothing that can wait is in the way of going back
    enter_network_namespace(settings.network_namespace)
    asks = os.geteuid()
    become_owner_of(state_folder())
    service = (await compose(settings)).service
    caller = service.people.at_the_socket(asks).model_copy(update={"address": "in this process"})
    if body["kind"] == CommandKind.ROLL_BACK:
        return await service.roll_back(
            caller,
            fleet,
            body["reason"],
            asked=RollbackAsked(
                to=body.get("to"),
                of=body.get("of"),
                settings=bool(body.get("settings")),
                force=bool(body.get("force")),
            ),
            key=key,
        )
    kind = CommandKind(body["kind"])
    return await service.command(caller, fleet, kind, body["reason"], key=key)


def become_owner_of(folder: Path) -> None:
    """Be the user whose the folder is, for good, with the groups of that user; only root can."""
    if os.geteuid() != 0 or not folder.is_dir():
        return
    owner, groups = folder.stat(), list[int]()
    with suppress(KeyError):
        groups = os.getgrouplist(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    os.setgroups(groups or [owner.st_gid])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
