"""Admission: a release is verified and in the store before a change goes on with it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from temporalio import activity

from activities.liveness import answering
from activities.releases import Releases
from activities.threads import OwnLoop, to_its_end
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Name, Value
from policies.model.verification import Scope

AT_ONCE = 4
"""Releases that are verified at once; a repository that answers nothing holds each for a minute."""


class AdmitOrder(Value):
    """Have this release verified for a fleet and in the store, under the trust policy agreed on."""

    release: ReleaseRef
    source: str
    product: Name
    channel: Name
    policy: Digest | None = None


class Admission(Value):
    """A release that was admitted, who signed it, and why that was enough."""

    release: ReleaseRef
    signers: tuple[str, ...]
    reason: str


class ReleaseActivities:
    """Release steps; safe to repeat after any crash.

    They wait for the ledger, the disk, Vault and the repository in threads of their own, so that no other
    step or workflow of the process waits with them.
    """

    def __init__(self, releases: Releases) -> None:
        self._releases = releases
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="admission")

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        """Have the release verified and in the store; refused by the name of the verdict."""
        scope = Scope(product=order.product, channel=order.channel)
        admit = partial(self._releases.admit, order.release, order.source, scope=scope, policy=order.policy)
        step = OwnLoop(admit)
        async with answering(), self._turn:
            admitted = await to_its_end(step, give_up=step.give_up, threads=self._threads)
        return Admission(release=admitted.reference, signers=admitted.signers, reason=admitted.reason)
