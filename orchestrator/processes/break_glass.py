"""Break-glass: what a person on a gateway's host does when the engine is away or not to be obeyed.

It needs neither engine nor network, asks nobody, and is in the host's own audit record before it has
any effect. Whoever owned the gateway is refused afterwards; an engine that is not trusted any more is
kept out by stopping the agent, which ends no session.
"""

from contextlib import suppress
from dataclasses import dataclass

from orchestrator.processes.agent import Host
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS, Operation
from policies.model.value import Digest, digest_of
from policies.rollback import kept_slot


@dataclass(frozen=True)
class Broken:
    """What was done: the epoch from which on orders are obeyed again, and what is true of the gateway now."""

    epoch: int
    steered_to: str | None
    state: GatewayState


async def break_glass(
    host: Host, person: str, reason: str, *, back: bool = False, slot: str | None = None
) -> Broken:
    """Reset the fence and, if asked, send new sessions back; no session is ended.

    Args:
        host: The parts of this host.
        person: Who does it, for the record.
        reason: Why, for the record.
        back: Send new sessions to the kept known-good: what they went to before the trial, or
            the one other instance that runs where what serves is not known-good on this host.
        slot: Send them to this slot instead.

    Raises:
        BadInput: There is no other instance, or several; nothing was changed.
        Refused: What serves is known-good on this host, and nothing is on trial; nothing was changed.
        InstanceGone: Nothing runs in the slot; the fence was reset.
    """
    before = await host.runtime.observe()
    target = slot if slot is not None else kept_slot(before, _known_good(host)) if back else None
    wish = f"reset the fence{f' and steer to slot {target}' if target else ''}"
    host.journal.reserve.spend_for(lambda: host.audit.record("break-glass", f"{wish}: {reason}", person))
    epoch = host.journal.reset(f"{person}: {reason}")
    if target is not None:
        operation = Operation(
            rollout=BREAK_GLASS,
            epoch=epoch,
            gateway=before.gateway,
            step=f"steer to {target}",
            digest=digest_of(reason.encode()),
        )
        await host.table.make_permanent(operation, target)
    return Broken(epoch=epoch, steered_to=target, state=await host.runtime.observe())


def _known_good(host: Host) -> Digest | None:
    """Return what was promoted last on this host; a record that cannot be read keeps no operator back."""
    with suppress(OSError, ValueError):
        return next(reversed(host.known_good()), None)
    return None
