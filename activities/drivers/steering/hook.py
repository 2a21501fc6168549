"""Steering by a program of the operator's, which points a balancer, a name server or a router at an instance.

The contract of that program, `front.hook` in agent.yaml, is in docs/steering.md: it is told what new
sessions are to get, and says what is in force, asked anew. A hook that ends leases itself keeps the promise
that going back needs nobody alive. For any other one this agent ends the trial, and nobody does while that is
dead.
"""

import asyncio
import json
import logging
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from activities.drivers.disk import write_whole
from activities.drivers.programs import run
from activities.drivers.rights import require_own
from activities.drivers.steering.orders import SteeringOrders, generation_of, seed_of
from activities.drivers.steering.port import Means
from activities.drivers.steering.switch import EVERYBODY, Switch
from policies.model.errors import BadInput, Conflict, PenstockError, Refused, Unavailable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Steering
from policies.model.operation import Operation
from policies.model.value import Message, Name, Sentence
from policies.steering import PROMISES

SHOWN = "hook.json"
"""In the agent's folder: what was in force when the agent looked last, for the exporter."""
WITHIN = timedelta(seconds=1.5)
"""Of a call: an order that waits for one and makes two ends within its step, `workflows.steps.GO_BACK`."""
HEAL_EVERY = timedelta(seconds=5)
NEARLY_OVER = timedelta(seconds=1)
_log = logging.getLogger(__name__)


class InForce(Message):
    """What a hook says is in force."""

    weights: dict[Name, int] = Field(default={}, max_length=64)
    """Percent of new sessions by slot; a slot that is not named gets none."""
    generation: Sentence = ""
    lease_seconds: float | None = Field(default=None, ge=0, le=86_400, allow_inf_nan=False)
    """What is left of the lease that the hook ends by itself."""


class HookSteering:
    """The steering of one gateway by a program."""

    promises = PROMISES["hook"]

    def __init__(self, orders: SteeringOrders, means: Means) -> None:
        """Take who may steer and where to, and the program.

        Raises:
            BadInput: The agent's file names none.
        """
        if means.hook is None:
            raise BadInput("steering hook needs a program: write hook under front in the agent's file")
        self._orders = orders
        self._gateway = orders.gateway
        self._hook = means.hook
        self._wanted: Switch | None = None
        self._read_back = False
        """Whether the hook has said since that this is in force."""
        self._last: Switch | None = None
        """What it said last."""
        self._shown, self._told = means.root / SHOWN, ""
        self._until = 0.0
        """When the lease of the wanted trial ends, by this process' clock."""
        self._turn = asyncio.Lock()

    @property
    def permanent(self) -> str | None:
        """The slot that was made permanent last, and is so after a reboot; None before the first."""
        return self._orders.permanent

    @property
    def listens(self) -> Collection[int]:
        """Nobody here: what is steered is elsewhere."""
        return ()

    @property
    def _ends_trials(self) -> bool:
        return "lease" in self._gateway.hook_can

    def take(self, adopted: Slot) -> None:
        """Know the slot of a daemon that is being adopted, to which new sessions can be sent from now on."""
        self._orders.take(adopted)

    async def prime(self) -> Steering:
        """Ensure that new sessions get what they got before; a trial that nobody remembers is ended."""
        try:
            changed = await self.heal()
            return (await self.read()).model_copy(update={"changed": changed})
        except PenstockError as error:
            _log.warning("the steering of %s: %s", self._gateway.name, error)
            return Steering(serving=self.permanent)

    async def read(self) -> Steering:
        """Return what is in force, as the hook says.

        Raises:
            Unavailable: it does not say.
        """
        return (await self._found()).steering

    async def start_trial(
        self,
        operation: Operation,
        slot: str,
        lease: timedelta,
        *,
        renew: bool = False,
        share: int = EVERYBODY,
    ) -> Steering:
        """Send new sessions to the slot until the lease ends; a repeat renews the lease.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            Refused: when the hook carries no share.
            BeyondHostLimits: when the lease is longer than this host takes.
            InstanceGone: when nothing runs in the slot.
            LeaseLapsed: when a trial is to be renewed and has ended.
            Conflict: when the hook says that something else is in force.
        """
        if share != EVERYBODY and "share" not in self._gateway.hook_can:
            raise Refused(
                f"the hook of {self._gateway.name} sends everybody or nobody (hook_can), and no "
                f"{share} percent"
            )
        await self._orders.admit_trial(operation, slot, lease)
        async with self._turn:
            now = await self._found()
            if renew and slot not in (now.trial, now.steer):
                raise self._orders.lapsed(slot)
            trial = now.on_trial(slot, lease, share=share, seed=seed_of(operation))
            return await self._change(operation, now if now.steer == slot else trial)

    async def make_permanent(self, operation: Operation, slot: str) -> Steering:
        """Send new sessions to the slot with no lease, and end any trial.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            InstanceGone: when nothing runs in the slot.
            Conflict: when the hook says that something else is in force.
        """
        await self._orders.admit_permanent(operation, slot)
        async with self._turn:
            steering = await self._change(operation, Switch(steer=slot), remember=slot)
        self._orders.tell_kept(slot)
        return steering

    async def end_trial(self, operation: Operation) -> Steering:
        """Send new sessions to the permanent slot again at once; nothing but the fence can refuse this.

        A hook that cannot be read is written first, and its failure is told afterwards.
        """
        self._orders.journal.admit(operation)
        async with self._turn:
            before = self.permanent or (await self._found()).steer
            return await self._change(operation, Switch(steer=before))

    async def refresh(self) -> Steering:
        """Return what is in force: nobody is pinned by a hook."""
        return await self.read()

    async def leave(self, slot: str) -> Steering:  # noqa: ARG002
        """Return what is in force: nobody is pinned by a hook."""
        return await self.read()

    async def heal(self) -> bool:
        """Ensure that what was written last is in force, and that no trial outlasts its lease."""
        async with self._turn:
            wanted = _still(self._wanted or Switch(steer=self.permanent), self._until)
            if wanted.steer is None:
                self._tell(await self._found())
                return False
            try:
                found = await self._found(wanted.steer)
            except PenstockError:
                if self._has_to_end(wanted):  # the lease waits for nobody who can read
                    await self._write(wanted)
                raise
            healed = not _agree(found, wanted)
            if healed:
                await self._write(wanted)
                found = await self._found(wanted.steer)
                if not _agree(found, wanted):
                    raise self._conflict(wanted, found)
            self._read_back = self._read_back or wanted.trial is None
            self._tell(found)
            return healed

    def _has_to_end(self, wanted: Switch) -> bool:
        """Whether a trial may be in force that is over: by its lease, by an order, or of an earlier agent."""
        lapsed = self._wanted is not None and self._wanted.trial is not None
        return wanted.trial is None and (lapsed or not self._read_back)

    async def keep(self) -> None:
        """Heal it for ever, and end trials whose lease is over, without any order."""
        said = ""
        while True:
            await asyncio.sleep(HEAL_EVERY.total_seconds())
            try:
                if await self.heal():
                    _log.warning("what %s had in force was not what was written; it is again", self._hook)
                said = ""
            except (PenstockError, OSError) as error:
                if said != str(error):
                    said = str(error)
                    _log.warning("the steering of %s: %s", self._gateway.name, said)

    async def words(self) -> str:
        """Return what the hook says."""
        return await self._call("read", json.dumps(place(self._gateway)))

    async def remove(self) -> None:
        """Leave everything as it is: what is steered is not ours."""

    async def _change(self, operation: Operation, wish: Switch, remember: str | None = None) -> Steering:
        """Write what is wished for, whatever is in force, and read it back."""
        before, wanted = self._last, wish.generated(generation_of(operation))
        self._orders.journal.check(operation)
        begun = time.monotonic()
        until = self._until if wanted.lease is None else begun + wanted.lease.total_seconds()
        if remember is not None:  # of what was never called nothing is remembered
            require_own(self._hook)
        if wanted.trial is None:  # whatever fails from here on, it heals to this and to no ended trial
            self._wanted, self._read_back = wanted, False
        await self._write(wanted)
        after = await self._found(remember, until)
        if not _agree(after, _still(wanted, until)):
            raise self._conflict(wanted, after)
        if after.trial is not None and self._ends_trials and not after.expires_in:
            raise Conflict(
                f"{self._hook} is to end trials by itself (hook_can), and tells no lease of slot "
                f"{after.trial}"
            )
        self._wanted, self._until, self._read_back = wanted, until, True
        if remember is not None:
            self._orders.remember(remember)
        self._tell(after)
        changed = before is None or _shares(before) != _shares(after)
        steering = after.steering.model_copy(update={"changed": changed})
        self._orders.journal.finish(operation, {"serving": steering.serving, "trial": steering.trial})
        return steering

    async def _found(self, permanent: str | None = None, until: float | None = None) -> Switch:
        """Return what is in force where this slot is the permanent one, and a trial ends then.

        By default both are as remembered.
        """
        said = await self._call("read", json.dumps(place(self._gateway)))
        try:
            found = InForce.model_validate_json(said)
        except ValidationError as error:
            raise Unavailable(f"{self._hook} read says nothing that can be read: {said[:200]!r}") from error
        self._last = self._switch(found, permanent or self.permanent, self._until if until is None else until)
        return self._last

    def _switch(self, found: InForce, permanent: str | None, until: float) -> Switch:
        """Return what the weights mean: whoever is not permanent is on trial."""
        weights = {slot: weight for slot, weight in found.weights.items() if weight > 0}
        others = [slot for slot in weights if slot != permanent]
        if permanent is None or not others:
            return Switch(steer=next(iter(weights), None), generation=found.generation)
        left = found.lease_seconds
        if left is None:
            left = 0.0 if self._ends_trials else max(0.0, until - time.monotonic())
        return Switch(
            steer=permanent,
            trial=others[0],
            expires_in=timedelta(seconds=left),
            share=weights[others[0]],
            generation=found.generation,
        )

    def _tell(self, found: Switch) -> None:
        """Let the exporter know, which asks no hook; a trial for it ends with its lease.

        What steers waits for no disk.
        """
        left = time.time() + found.expires_in.total_seconds() if found.expires_in is not None else None
        said = json.dumps({"serving": found.steer, "trial": found.trial, "until": left})
        if said == self._told:
            return
        try:
            write_whole(self._shown, said)
            self._told = said
        except OSError as error:
            _log.warning("the exporter does not hear what steers %s: %s", self._gateway.name, error)

    async def _write(self, wanted: Switch) -> None:
        await self._call("write", json.dumps(document(self._gateway, wanted)))

    async def _call(self, what: str, given: str) -> str:
        require_own(self._hook)
        done = await run([str(self._hook), what], given=given, within=WITHIN)
        if done.status:
            raise Unavailable(f"{self._hook} has failed to {what}: {done.last_words}")
        return done.out

    def _conflict(self, wanted: Switch, after: Switch) -> Conflict:
        return Conflict(
            f"{self._hook} took a change on {self._gateway.name} and did not make it: wanted "
            f"{wanted.trial or wanted.steer}, read back {after.trial or after.steer}"
        )


def place(gateway: Gateway) -> dict[str, Any]:
    """Return what a hook is told of the gateway."""
    return {
        "gateway": gateway.name,
        "addresses": [str(address) for address in gateway.addresses],
        "port": gateway.port,
        "slots": {slot.name: {"port": slot.port, "users_at": slot.users_at} for slot in gateway.slots},
    }


def document(gateway: Gateway, wanted: Switch) -> dict[str, Any]:
    """Return what a hook is told that is to be in force."""
    return {
        **place(gateway),
        "serving": wanted.steer,
        "trial": wanted.trial,
        "share": wanted.share,
        "seed": wanted.seed,
        "weights": _weights(wanted),
        "afterwards": _weights(wanted.without_trial()),
        "lease_seconds": wanted.lease.total_seconds() if wanted.lease is not None else None,
        "generation": wanted.generation,
    }


def _weights(wanted: Switch) -> dict[str, int]:
    found = {wanted.steer: EVERYBODY} if wanted.steer else {}
    if wanted.trial is not None:
        rest = {wanted.steer: EVERYBODY - wanted.share} if wanted.steer else {}
        found = rest | {wanted.trial: wanted.share}
    return {slot: weight for slot, weight in found.items() if weight}


def _shares(switch: Switch) -> tuple[str | None, str | None, int]:
    return switch.steer, switch.trial, switch.share


def _still(wanted: Switch, until: float) -> Switch:
    """Return it without a trial whose lease is over by now."""
    left = until - time.monotonic()
    if wanted.trial is None:
        return wanted
    if left <= 0:
        return wanted.without_trial()
    return wanted.on_trial(wanted.trial, timedelta(seconds=left), share=wanted.share, seed=wanted.seed)


def _agree(found: Switch, wanted: Switch) -> bool:
    tried = [(wanted.trial, wanted.share)]
    if wanted.lease is not None and wanted.lease < NEARLY_OVER:
        tried.append((None, EVERYBODY))
    return found.steer == wanted.steer and (found.trial, found.share) in tried


async def read_shown(gateway: Gateway, root: Path, _slots: object) -> Steering:
    """Return what was in force when the gateway's agent looked last, for who changes nothing.

    Raises:
        Unavailable: The agent has not looked yet.
    """
    try:
        said = json.loads((root / SHOWN).read_text())
    except (OSError, ValueError) as error:
        raise Unavailable(f"what steers {gateway.name} was not asked by its agent yet") from error
    lasts = said["until"] is None or said["until"] > time.time()
    return Steering(primed=True, serving=said["serving"], trial=said["trial"] if lasts else None)
