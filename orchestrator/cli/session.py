"""A session with the service: settings read, engine and ledger opened only when a command needs them."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.settings import Settings
from policies.model.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from activities.drivers.store.snapshots import SnapshotArchive
    from orchestrator.service.changes import ChangeService, Standing
    from orchestrator.service.drains import DrainService
    from orchestrator.service.quarantine import QuarantineService
    from orchestrator.store.changes import HistoryRow
    from orchestrator.store.evidence import EvidenceList
    from orchestrator.store.ledger import Ledger
    from policies.judge.offline.predict import Prediction
    from policies.model.change import ChangeResult
    from policies.model.command import Command, CommandReceipt
    from policies.model.fleet import Fleet
    from policies.model.plan import Plan, ReleaseRef, Strategy
    from policies.model.status import ChangeStatus

T = TypeVar("T")


class Session:
    """What commands share: the settings, the ledger, the fleet's file and the service."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def ledger(self) -> "Ledger":
        """The ledger, opened at the first question."""
        from orchestrator.store.ledger import Ledger  # noqa: PLC0415 - quick commands stay quick

        return Ledger.open(self.settings.ledger_url)

    @cached_property
    def evidence(self) -> "EvidenceList":
        """The list of snapshots."""
        from orchestrator.store.evidence import EvidenceList  # noqa: PLC0415 - quick commands stay quick

        return EvidenceList.open(self.settings.ledger_url)

    @cached_property
    def archive(self) -> "SnapshotArchive":
        """The snapshots themselves."""
        from activities.drivers.store.snapshots import SnapshotArchive  # noqa: PLC0415

        return SnapshotArchive(self.settings.snapshots)

    @cached_property
    def fleet(self) -> "Fleet":
        """The fleet of the settings' fleet.yaml."""
        from orchestrator.files import load  # noqa: PLC0415
        from policies.model.fleet import Fleet  # noqa: PLC0415

        return load(self.settings.fleet, Fleet)

    def fleet_named(self, name: str | None) -> "Fleet":
        """Return the fleet that is meant; BadInput when the file describes another one."""
        if name not in (None, self.fleet.name):
            raise BadInput(
                f"there is no fleet {name}: {self.settings.fleet} describes the fleet {self.fleet.name}"
            )
        return self.fleet

    def fleet_name(self, name: str | None) -> str:
        """Return the name of the fleet that is meant; without a file, as in an archive, any name may be."""
        if name is not None and not self.settings.fleet.exists():
            return name
        return self.fleet_named(name).name

    async def service(self) -> "ChangeService":
        """Return the service, connected to the engine."""
        from orchestrator.engine.client import connect, enter_network_namespace  # noqa: PLC0415
        from orchestrator.service.changes import ChangeService  # noqa: PLC0415

        enter_network_namespace(self.settings.network_namespace)
        client = await connect(
            self.settings.temporal_address,
            self.settings.temporal_namespace,
            payload_keys=self.settings.payload_keys,
        )
        return ChangeService(client, self.ledger)

    async def drain_service(self) -> "DrainService":
        """Return what knows the fleet's drains."""
        from orchestrator.service.drains import DrainService  # noqa: PLC0415 - quick commands stay quick

        service = await self.service()
        return DrainService(service.client, service)

    async def quarantine_service(self) -> "QuarantineService":
        """Return what leaves gateways out and takes them in again."""
        from orchestrator.service.quarantine import QuarantineService  # noqa: PLC0415

        return QuarantineService(await self.service())

    async def status(self, name: str | None) -> "ChangeStatus":
        """Return the five sentences."""
        return await (await self.service()).status(self.fleet_name(name))

    def last_known(self, name: str | None) -> "HistoryRow | None":
        """Return the newest change that the ledger has, of the named fleet or of that of the file."""
        if name is None and not self.settings.fleet.exists():
            return None
        return next(iter(self.ledger.history(self.fleet_name(name), limit=1)), None)

    async def standing(self, name: str | None) -> "Standing | None":
        """Return what the fleet is on while it has not been upgraded yet; None when nobody can say."""
        if not self.settings.fleet.exists():
            return None
        try:
            return await (await self.service()).standing(self.fleet_named(name))
        except Unavailable:
            return None

    async def plan(self, name: str | None, to: str, strategy: "Strategy") -> "Plan":
        """Return the plan of an upgrade of the fleet to the named release."""
        from orchestrator.files import load  # noqa: PLC0415
        from policies.model.gates import GatePolicy, lint  # noqa: PLC0415
        from policies.model.value import digest_of  # noqa: PLC0415

        fleet, release = self.fleet_named(name), self.ledger.release(to)
        trust_policy = digest_of(read_file(self.settings.trust, "the trust policy"))
        gates = load(self.settings.gates, GatePolicy)
        if problems := lint(gates):
            raise BadInput(f"{self.settings.gates} is not safe to judge by: {problems[0]}")
        return await (await self.service()).plan(fleet, release, strategy, gates, trust_policy)

    async def predict(self, plan: "Plan") -> "tuple[Prediction, ...]":
        """Return when each required gate of wave one will have decided; empty when traffic is unknown."""
        from activities.drivers.metrics.prometheus import PrometheusSource  # noqa: PLC0415
        from orchestrator.service.login_rate import attempts_per_minute  # noqa: PLC0415
        from policies.judge.offline.predict import predict  # noqa: PLC0415

        if not plan.waves:
            return ()
        source = PrometheusSource(self.settings.prometheus_url)
        rate = await attempts_per_minute(source, plan.fleet)
        canaries = len(plan.waves[0].gateways)
        controls = max(1, len(plan.fleet.gateways) - canaries)
        return predict(plan.gates, rate, canaries=canaries, controls=controls) if rate else ()

    async def add_release(self, digest: str) -> "ReleaseRef":
        """Verify a release of the repository and write it into the ledger; TrustError if it may not be."""
        from activities.drivers.trust_files import compose_releases  # noqa: PLC0415
        from activities.releases import CREDENTIALS  # noqa: PLC0415
        from orchestrator.engine.client import enter_network_namespace  # noqa: PLC0415

        enter_network_namespace(self.settings.network_namespace)
        releases = compose_releases(
            self.settings.store,
            self.settings.trust,
            product=self.fleet.product,
            channel=self.fleet.channel,
        )
        admitted = await releases.admit(digest, self.settings.source)
        self.ledger.add_release(
            admitted.reference,
            source=CREDENTIALS.sub("//", self.settings.source),
            signers=admitted.signers,
            manifest_json=admitted.manifest.model_dump_json(),
        )
        return admitted.reference

    async def install(self, name: str | None, to: str, person: str) -> "ChangeResult":
        """Bring up the fleet's empty gateways with the named release; return how it ended."""
        fleet, release = self.fleet_named(name), self.ledger.release(to)
        service = await self.service()
        await service.install(fleet, release, self.settings.source, person)
        return await service.end_of(fleet.name)

    async def start(self, plan: "Plan", person: str, reason: str, *, even_if_unusual: bool = False) -> str:
        """Start the plan; return the change's name."""
        service, source = await self.service(), self.settings.source
        return await service.start(plan, source, person, reason, even_if_unusual=even_if_unusual)

    async def command(self, fleet: str, command: "Command") -> "CommandReceipt":
        """Give an order."""
        return await (await self.service()).command(fleet, command)

    async def roll_back(
        self,
        name: str | None,
        person: str,
        reason: str,
        to: str | None = None,
        *,
        force: bool = False,
        tell: Callable[[str], None],
    ) -> "CommandReceipt":
        """Send the fleet back, to known-good or to the named release; force ends a change that is stuck."""
        fleet, release = self.fleet_named(name), self.ledger.release(to) if to else None
        service, source = await self.service(), self.settings.source
        return await service.roll_back(
            fleet, person, reason, to=release, source=source, force=force, tell=tell
        )

    def history(self, name: str | None, limit: int, before: str | None) -> "tuple[HistoryRow, ...]":
        """Return the fleet's changes, the newest first, those before the named one."""
        return self.ledger.history(self.fleet_name(name), limit, before)


def read_file(path: Path, what: str) -> bytes:
    """Return a file's bytes; BadInput names what it is when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read ({error.strerror}): see PENSTOCK_TRUST") from error


def in_session(work: Callable[[Session], Awaitable[T]]) -> T:
    """Run the work of one command."""

    async def run() -> T:
        return await work(Session(Settings()))

    return asyncio.run(run())
