"""Disasters: what is rehearsed of a whole control plane, a whole host, a whole fleet, and of a thief.

Each is the real thing as far as one machine can have it: processes that are killed, a host whose every
process and firewall is gone and whose boot has another name, a copy of a certificate shown to real relays.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx

from activities.files import load
from deploy.lab.faults import flush_nftables
from deploy.lab.lab import FLEET, GATES, OPERATOR, Lab
from deploy.lab.processes import Process
from deploy.lab.rehearsal import Rehearsal, map_of, said, step, told
from deploy.lab.topology import Host
from orchestrator.relay.calls import SERVICE
from policies.model.change import Outcome, Phase
from policies.model.drill import DrillStep
from policies.model.errors import Unavailable
from policies.model.gates import GatePolicy
from policies.model.plan import Strategy

SUPERVISOR = 2.0
"""Seconds until whoever supervises processes has noticed that they ended."""
BOOTS_FOR = 5.0
"""Seconds that a host is away when it reboots; real ones take longer, and nobody waits for them here."""
LOOK_EVERY = 0.2
PATIENCE = 120.0
SECOND_RELAY, SECOND_ENROLMENT = 7236, 7237
RELAY_NAME = "relay.penstock"
OTHER_BOOT = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
"""Starts a program that reads another name of the boot than the machine's own."""


class Disasters:
    """What can befall one lab; each play returns its steps, the last of which says that users are safe."""

    def __init__(self, lab: Lab, rehearsal: Rehearsal) -> None:
        self.lab = lab
        self.rehearsal = rehearsal
        self.own_losses = 0
        """Sessions that ended with the host that was rebooted."""

    # --- a fleet ---------------------------------------------------------------------

    async def rollback_after_promotion(self) -> list[DrillStep]:
        """Promote the newer release everywhere, then have a person take all of it back."""
        self.rehearsal.judge_by(load(GATES, GatePolicy).window)
        plan = await self.lab.plan(self.lab.newer, Strategy.CANARY)
        promoted = await self.lab.start(plan, "drill")
        status = await self.rehearsal.until(lambda _: False)
        if status.outcome is not Outcome.PROMOTED:
            raise Unavailable(f"{promoted} was to be promoted first, and was not: {status.why}")
        began = datetime.now(UTC)
        await self.lab.roll_back("drill", "it is rehearsed")
        ordered = step("a person orders the way back", datetime.now(UTC), began)
        status = await self.rehearsal.until(lambda seen: seen.rollout != promoted)
        begun = step("the way back begins", datetime.now(UTC), began)
        status = await self.rehearsal.until(
            lambda seen: seen.rollout != promoted and seen.phase is Phase.ENDED
        )
        if status.outcome is not Outcome.ROLLED_BACK:
            raise Unavailable(f"{status.rollout} did not bring the fleet back: {status.why}")
        ended = step("every gateway read back: on known-good", datetime.now(UTC), began)
        return [ordered, begun, ended, await self._serves_older(began)]

    async def _serves_older(self, began: datetime) -> DrillStep:
        """Read from every gateway that new sessions go to the release that was there before."""

        async def all_older() -> bool:
            states = (await self.lab.states()).values()
            serving = [one.instance(one.steering.serving) for one in states if one.steering.serving]
            older = [one for one in serving if one.release == self.lab.older.digest]
            return len(older) == len(self.lab.topology.gateways)

        await _until(all_older, "a gateway still gives new sessions to the newer release")
        return step("every gateway gives new sessions to the older release", datetime.now(UTC), began)

    # --- the control plane -------------------------------------------------------------

    async def control_plane_lost(self) -> list[DrillStep]:
        """Kill all of it while a canary is on trial: the kernel goes back, and nothing is forgotten."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        host = self._host(trial.gateway)
        began = datetime.now(UTC)
        for one in (self.lab.worker, self.lab.api, self.lab.relay, self.lab.engine.process):
            one.kill()
        killed = step("engine, worker, relay and API are gone", datetime.now(UTC), began)
        await _until(_now(lambda: not map_of(host, "trial")), f"the lease of {trial.gateway} never ended")
        ended = step("the kernel sent new sessions back", datetime.now(UTC), began)
        self.lab.engine.start()
        for one in (self.lab.relay, self.lab.worker, self.lab.api):
            one.start()
        started = step("started again", datetime.now(UTC), began)
        await _until(self._api_answers, "the API does not answer")
        answers = step("the API answers", datetime.now(UTC), began)
        status = await self.rehearsal.end()
        back = told(status, began, back=f"{trial.gateway} back on known-good")
        return [killed, ended, started, answers, *back]

    async def _api_answers(self) -> bool:
        transport = httpx.AsyncHTTPTransport(uds=str(self.lab.installation.settings.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://penstock", timeout=2.0) as api:
            with suppress(httpx.HTTPError):
                return (await api.get(f"/v1/fleets/{FLEET}")).is_success
        return False

    # --- a host ------------------------------------------------------------------------

    async def host_rebooted(self) -> list[DrillStep]:
        """Take everything from the canary's host that a reboot takes, and start its agent in another boot."""
        trial = await self.rehearsal.on_trial(self.lab.newer, "drill")
        host = self._host(trial.gateway)
        before = self._lost_on(host)
        began = datetime.now(UTC)
        self._kill_everything_on(host)
        flush_nftables(host)
        await asyncio.sleep(BOOTS_FOR)
        self._boot(host)
        booted = step("the host is up again", datetime.now(UTC), began)

        async def serves() -> bool:
            with suppress(Unavailable):
                state = (await self.lab.states()).get(host.name)
                slot = state.steering.serving if state is not None else None
                return state is not None and slot is not None and state.instance(slot).pid is not None
            return False

        await _until(serves, f"{host.name} does not serve again")
        serving = step("its known-good serves again", datetime.now(UTC), began)
        own = len(self._users_of(host))
        await _until(_now(lambda: self._lost_on(host) - before >= own), f"a user of {host.name} lost nothing")
        await _until(_now(self._is_everybody_up), "not every user has a session again")
        users = step("every user has a session again", datetime.now(UTC), began)
        self.own_losses = self._lost_on(host) - before
        status = await self.rehearsal.end()
        steps = [booted, serving, users, step("the change has ended", datetime.now(UTC), began)]
        if (at := said(status, f"{host.name} ")) is not None and at > began:
            steps.append(step("told", at, began))
        return sorted(steps, key=lambda one: one.seconds)

    def _kill_everything_on(self, host: Host) -> None:
        self.lab.agents[host.name].kill()
        self.lab.exporters[host.name].kill()
        done = subprocess.run(
            ["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=True
        )
        for pid in map(int, done.stdout.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _boot(self, host: Host) -> None:
        boot = self.lab.folder / f"boot-of-{host.name}"
        boot.write_text(f"{uuid4()}\n")
        under = ["unshare", "--mount", "sh", "-c", OTHER_BOOT, str(boot)]
        for programs in (self.lab.agents, self.lab.exporters):
            before = programs[host.name]
            programs[host.name] = before.twin(f"{before.name}-rebooted", under=under)
            programs[host.name].start()

    def _lost_on(self, host: Host) -> int:
        return sum(int(user["lost"]) for user in self._users_of(host))

    def _users_of(self, host: Host) -> list[dict[str, Any]]:
        return [user for user in self.lab.users.view()["users"] if user["gateway"] == host.name]

    def _is_everybody_up(self) -> bool:
        return bool(self.lab.figures()["up"] == len(self.lab.topology.sites))

    # --- a thief -----------------------------------------------------------------------

    async def agent_stolen(self) -> list[DrillStep]:
        """Show every relay a copy of a certificate until none takes it, and leave its gateway out."""
        host, service = self.lab.topology.gateways[0], self.lab.installation.service
        second = await self._second_relay()
        stolen = Thief(self.lab.folder / "gateways" / host.name / "identity")
        first = str(self.lab.installation.settings.relay_address)
        relays = {"the relay": first, "the second relay": second}
        for name, address in relays.items():
            await _until(partial(stolen.is_let_in, address), f"{name} never took the certificate")
        began = datetime.now(UTC)
        await service.revoke_gateway(OPERATOR, FLEET, host.name, "stolen; it is rehearsed")
        steps = [step("a person revokes the certificate", datetime.now(UTC), began)]
        why = "its certificate was stolen; it is rehearsed"
        await service.leave_out(OPERATOR, FLEET, (host.name,), why)
        standing = (await service.status(OPERATOR, FLEET)).standing
        if host.name not in standing.quarantined:
            raise Unavailable(f"{host.name} is not quarantined")
        steps.append(step("the gateway is quarantined", datetime.now(UTC), began))
        for name, address in relays.items():
            await _until(partial(stolen.is_refused, address), f"{name} still takes the certificate")
            steps.append(step(f"{name} refuses it", datetime.now(UTC), began))
        if any([await stolen.is_let_in(address) for address in relays.values()]):
            raise Unavailable("a relay took the certificate again")
        return steps

    async def _second_relay(self) -> str:
        address = self.lab.topology.hub.address4
        relay: Process = self.lab.relay.twin(
            "relay-2",
            PENSTOCK_RELAY_ADDRESS=f"{address}:{SECOND_RELAY}",
            PENSTOCK_ENROLMENT_ADDRESS=f"{address}:{SECOND_ENROLMENT}",
        )
        relay.start()
        return f"{address}:{SECOND_RELAY}"

    def _host(self, gateway: str) -> Host:
        return next(host for host in self.lab.topology.gateways if host.name == gateway)


class Thief:
    """Whoever has a copy of what a gateway's agent shows, and calls relays with it."""

    def __init__(self, identity: Path) -> None:
        """Copy it: what the host does afterwards changes nothing."""
        self._credentials = grpc.ssl_channel_credentials(
            (identity / "authority.pem").read_bytes(),
            (identity / "agent.key").read_bytes(),
            (identity / "agent.pem").read_bytes(),
        )

    async def is_let_in(self, address: str) -> bool:
        """Return whether a relay there answers."""
        return await self._asked(address) is None

    async def is_refused(self, address: str) -> bool:
        """Return whether a relay there answers that it may not; a silent one has refused nobody."""
        refusals = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
        return await self._asked(address) in refusals

    async def _asked(self, address: str) -> grpc.StatusCode | None:
        options = (("grpc.ssl_target_name_override", RELAY_NAME),)
        async with grpc.aio.secure_channel(address, self._credentials, options=options) as channel:
            try:
                ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                    f"{SERVICE}GetSystemInfo"
                )
                await ask(b"", timeout=3.0)
            except grpc.aio.AioRpcError as refused:
                code: grpc.StatusCode = refused.code()
                return code
        return None


def _now(is_so: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return is_so()

    return look


async def _until(is_so: Callable[[], Awaitable[bool]], else_: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await is_so():
        if time.monotonic() > deadline:
            raise Unavailable(else_)
        await asyncio.sleep(LOOK_EVERY)
