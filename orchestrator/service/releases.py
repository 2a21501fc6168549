"""Releases: verified from the repository into the ledger, listed, and withdrawn."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from activities.drivers.trust_files import Trail, compose_releases, load_trust
from activities.releases import CREDENTIALS, Admitted, Releases
from activities.threads import OwnLoop
from orchestrator.refusals import HOUR_SECONDS
from orchestrator.service.background import VERIFICATIONS
from orchestrator.store.ledger import Ledger
from orchestrator.store.releases import is_named
from policies.adoption import is_adopted
from policies.model.errors import BadInput, TooMany, Unknown
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.refusals import TrustError
from policies.model.release import ReleaseRow
from policies.model.value import Digest
from policies.model.verification import Verification

MOST_RELEASES = 60
"""Releases that one person or machine has verified in an hour: each is in records that are kept for ever."""


class HourOfVerdicts:
    """Which verdicts each caller of this process got in this hour, so that each is recorded once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin an hour; `clock` counts seconds."""
        self._clock = clock
        self._turn = threading.Lock()
        self._ends = clock() + HOUR_SECONDS
        self._recorded: defaultdict[str, dict[tuple[str, str], set[tuple[str, ...]]]] = defaultdict(dict)

    def of(self, person: str, fleet: str, release: str) -> set[tuple[str, ...]]:
        """Return the verdicts on a release that are recorded for this person, to be added to.

        Raises:
            TooMany: The person had many other releases verified in this hour.
        """
        now = self._clock()
        with self._turn:
            if now >= self._ends:
                self._recorded.clear()
                self._ends = now + HOUR_SECONDS
            theirs = self._recorded[person]
            if (fleet, release) not in theirs and len(theirs) >= MOST_RELEASES:
                sentence = f"{person} had {MOST_RELEASES} releases verified in this hour; verify others later"
                raise TooMany(sentence, self._ends - now)
            return theirs.setdefault((fleet, release), set())


@dataclass(frozen=True)
class ReleaseService:
    """What may be rolled out, and who says so; who may ask is asked before, by `Service`."""

    ledger: Ledger
    store: Path
    trust: Path
    source: str | None
    promoted: Callable[[], Collection[str]] = tuple
    """What any gateway goes back to: the worker has a store of its own, and notes it there alone."""
    verdicts: HourOfVerdicts = field(default_factory=HourOfVerdicts)

    @property
    def repository(self) -> str:
        """Where releases come from.

        Raises:
            BadInput: The settings do not say.
        """
        if self.source is None:
            raise BadInput(
                "no release repository is set: set PENSTOCK_SOURCE to its address, at one of the origins "
                f"under sources.allow of {self.trust}, and restart penstock"
            )
        return self.source

    def read_trust(self) -> None:
        """Read the trust policy, and with it the libraries of the kinds of signatures that it names.

        Raises:
            PolicyInvalid: It is not as it must be.
        """
        load_trust(self.trust)

    async def verify(self, fleet: Fleet, digest: str, person: str) -> Admitted:
        """Return who signed a release of the repository and why that is enough; it is not added.

        Who had what fetched is in the audit record, also when it is refused; the same verdict once an hour.

        Raises:
            TrustError: It may not be used, with the reason.
            TooMany: The person had many other releases verified in this hour, or has some verified now.
        """
        step = OwnLoop(partial(self._verified, fleet, digest, person, self.repository))
        return await VERIFICATIONS.run(step, person, abandon=step.give_up)

    async def _verified(self, fleet: Fleet, digest: str, person: str, repository: str) -> Admitted:
        """Verify the release; this blocks for the ledger and the disk, so it has a loop of its own."""
        recorded, made = self.verdicts.of(person, fleet.name, digest), list[Verification]()
        file = Trail(self.store / "audit.jsonl")

        def record(verification: Verification) -> None:
            if _outcome(verification) not in recorded:
                file.append(verification)
                made.append(verification)

        releases = compose_releases(
            self.store,
            self.trust,
            product=fleet.product,
            channel=fleet.channel,
            promoted=self.promoted,
            record=record,
        )
        try:
            return await releases.admit(digest, repository)
        finally:
            for verification in made:
                if verification.accesses:
                    self.ledger.note_fetch(verification, person, fleet.name)
                recorded.add(_outcome(verification))

    def refused_again(self, fleet: Fleet, releases: Collection[ReleaseRef]) -> dict[Digest, TrustError]:
        """Return why releases that gateways go back to would not start again, by this host's trust policy.

        What was adopted is started by its own unit, and no policy is asked. Disks are waited for: call it in
        a thread that nobody else waits for.

        Raises:
            PolicyInvalid: The trust policy is not as it must be.
        """
        judging = compose_releases(self.store, self.trust, product=fleet.product, channel=fleet.channel)
        return asyncio.run(_refused_again(judging, [one for one in releases if not is_adopted(one)]))

    async def add(self, fleet: Fleet, digest: str, person: str) -> ReleaseRow:
        """Verify a release and have it in the ledger; return its row."""
        admitted = await self.verify(fleet, digest, person)
        await asyncio.to_thread(
            self.ledger.add_release,
            admitted.reference,
            source=CREDENTIALS.sub("//", self.repository),
            signers=admitted.signers,
            manifest_json=admitted.manifest.model_dump_json(),
            person=person,
        )
        rows = await asyncio.to_thread(self.ledger.releases)
        return self.named(admitted.reference.digest, rows)

    def named(self, name: str, rows: Iterable[ReleaseRow]) -> ReleaseRow:
        """Return the release of that version, digest or beginning of one, withdrawn ones too.

        Raises:
            Unknown: There is none among these.
            BadInput: The name fits several.
        """
        found = [row for row in rows if is_named(row.release, name)]
        if not found:
            raise Unknown(f"no release {name} in the ledger", Offer(verb=Verb.RELEASES))
        if len(found) > 1:
            raise self.ledger.several(name, found)
        return found[0]


async def _refused_again(judging: Releases, releases: Iterable[ReleaseRef]) -> dict[Digest, TrustError]:
    found = dict[Digest, TrustError]()
    for release in releases:
        try:
            judging.require_not_given_up(release)
            await judging.require_way_back(release)
        except TrustError as refusal:
            found[release.digest] = refusal
    return found


def _outcome(verification: Verification) -> tuple[str, ...]:
    """Return what makes a verdict another one; how long an answer took, and how much came, do not."""
    return (verification.source, verification.policy, verification.verdict.code)
