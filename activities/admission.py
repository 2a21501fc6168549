"""Admission: a release is verified and in the store before a change goes on with it."""

from temporalio import activity

from activities.liveness import answering
from activities.releases import Releases
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Name, Value
from policies.model.verification import Scope


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
    """Release steps; safe to repeat after any crash."""

    def __init__(self, releases: Releases) -> None:
        self._releases = releases

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        """Have the release verified and in the store; refused by the name of the verdict."""
        scope = Scope(product=order.product, channel=order.channel)
        async with answering():
            admitted = await self._releases.admit(
                order.release, order.source, scope=scope, policy=order.policy
            )
        return Admission(release=admitted.reference, signers=admitted.signers, reason=admitted.reason)
