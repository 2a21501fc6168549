"""The safe direction without an API: root on the orchestrator's host holds a change or takes a fleet back.

The same service does it, in this process: authorised, audited, once for each key.
"""

import asyncio
import os
from typing import Any

from orchestrator.engine.client import enter_network_namespace
from orchestrator.processes.composition import compose
from orchestrator.settings import read_settings
from policies.model.command import CommandKind, CommandReceipt
from policies.model.way_back import RollbackAsked


def command(fleet: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    """Give the command and return its receipt; errors as the service raises them."""
    return asyncio.run(_command(fleet, body, key)).model_dump(mode="json")


async def _command(fleet: str, body: dict[str, Any], key: str) -> CommandReceipt:
    settings = read_settings(lenient=True)  # nothing that can wait is in the way of going back
    enter_network_namespace(settings.network_namespace)
    service = (await compose(settings)).service
    caller = service.people.at_the_socket(os.geteuid()).model_copy(update={"address": "in this process"})
    if body["kind"] == CommandKind.ROLL_BACK:
        return await service.roll_back(
            caller,
            fleet,
            body["reason"],
            asked=RollbackAsked(to=body.get("to"), of=body.get("of"), settings=bool(body.get("settings"))),
            force=bool(body.get("force")),
            key=key,
        )
    kind = CommandKind(body["kind"])
    return await service.command(caller, fleet, kind, body["reason"], key=key)
