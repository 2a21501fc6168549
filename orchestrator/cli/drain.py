"""Commands about live sessions: how many there are, what is draining, and waiting longer or no longer."""

from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say, say_as_of
from orchestrator.cli.receipts import exit_of_each
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, Reason, fleet_of, seconds
from orchestrator.words.times import moment

app = group("Wait longer for old sessions, or no longer.")

OneGateway = Annotated[
    str | None, typer.Option("--gateway", help="only this one; all that drain when left out")
]
OneSlot = Annotated[
    str | None, typer.Option("--slot", help="only this slot of the gateway, as `penstock drains` names it")
]
UNKNOWN = "unknown"


def sessions(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Count the live sessions of every instance.

    Operators have every gateway asked now. All others share a survey, whose time is shown: of 30 s, and of
    100 ms for each gateway where that is longer.
    """
    api = Api()
    found = api.surveying().get("fleets", fleet_of(api, fleet), "gateways")

    def table() -> None:
        columns = ("GATEWAY", "SLOT", "STATE", "NEW SESSIONS", "SESSIONS")
        print_table(columns, _instances(found), "No gateway has answered.")
        say_as_of(found)

    emit(output, "GatewayList", found, table, names=sorted(found["states"]))


def _instances(found: Any) -> list[tuple[str, ...]]:
    rows = []
    for name, state in sorted(found["states"].items()):
        running = [instance for instance in state["instances"] if instance["state"] != "stopped"]
        for instance in running:
            takes = "yes" if _serving(state) == instance["slot"] else "no"
            counted = _count(instance["sessions"])
            rows.append((name, instance["slot"], instance["state"], takes, counted))
        if not running:
            rows.append((name, "", "runs nothing of penstock's", "", UNKNOWN))
    silent = [(name, "", f"silent: {why}", "", UNKNOWN) for name, why in sorted(found["silent"].items())]
    return [*rows, *silent]


def _serving(state: Any) -> str | None:
    """Return the slot that new sessions go to now: on trial before for good."""
    steering = state["steering"]
    slot: str | None = steering["trial"] or steering["serving"]
    return slot


def drains(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Show what is draining: live counts, exempt sessions, deadlines, and what happens next."""
    api = Api()
    answer = api.surveying().get("fleets", fleet_of(api, fleet), "drains")
    found = answer["drains"]
    slots = sorted(
        (slot for status in found for slot in status["slots"]),
        key=lambda slot: (slot["gateway"], slot["slot"]),
    )

    def table() -> None:
        columns = ("GATEWAY", "SLOT", "SESSIONS", "EXEMPT", "ENDED", "LOST", "DEADLINE", "NEXT")
        rows = [
            (
                slot["gateway"],
                slot["slot"],
                _count(slot["sessions"]),
                _count(slot["exempt"]),
                str(slot["ended"]),
                str(slot["lost"]),
                moment(slot["deadline"]),
                f"{slot['step']}: {slot['why']}",
            )
            for slot in slots
        ]
        print_table(columns, rows, "Nothing is draining.")
        say_as_of(answer)

    emit(output, "DrainList", found, table, rows=slots, names=[f"{s['gateway']}/{s['slot']}" for s in slots])


@app.command("extend")
def extend(
    by: Annotated[str, typer.Option("--by", help="how much longer, for example 30m")],
    reason: Reason,
    fleet: FleetName = None,
    gateway: OneGateway = None,
    slot: OneSlot = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move the deadline of a drain; people are warned before the new one again.

    The exit code is 1 when a drain does not answer, whatever the others did.
    """
    body = {"by_seconds": seconds(by), "gateway": gateway, "slot": slot, "reason": reason}
    _tell(fleet, "extend", body, key, output)


@app.command("end")
def end(
    reason: Reason,
    fleet: FleetName = None,
    gateway: OneGateway = None,
    slot: OneSlot = None,
    exempt_too: Annotated[
        bool, typer.Option("--exempt-too", help="exempt ones as well, and what does not answer")
    ] = False,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """End what is left in small batches; its users log in again.

    With `--exempt-too` an instance that does not answer is stopped, and every session that it has is lost.

    The exit code is 1 when a drain does not answer, whatever the others did.
    """
    body = {"gateway": gateway, "slot": slot, "reason": reason, "exempt_too": exempt_too}
    _tell(fleet, "end", body, key, output)


def _tell(fleet: str | None, verb: str, body: dict[str, Any], key: str | None, output: Output) -> None:
    api = Api()
    receipts = api.post("fleets", fleet_of(api, fleet), "drains", verb, body=body, key=key)["receipts"]
    sentences = [receipt["sentence"] for receipt in receipts]
    emit(output, "CommandReceiptList", receipts, lambda: say(*sentences), rows=receipts)
    raise exit_of_each(receipts)


def _count(sessions: int | None) -> str:
    return UNKNOWN if sessions is None else str(sessions)
