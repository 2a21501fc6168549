"""Which image a release is: what its signers say, verified here by the cluster's own trust policy."""

from activities.releases import Releases
from policies.model.errors import PenstockError
from policies.model.plan import ReleaseRef
from policies.model.refusals import TrustError
from policies.model.value import Digest
from policies.trust.ways_back import no_way_back


class VouchedImages:
    """Images of releases that this cluster's driver has verified itself."""

    def __init__(self, releases: Releases) -> None:
        """Verify by these releases' trust policy, product and channel."""
        self._releases = releases

    async def image_of(self, release: ReleaseRef, source: str) -> Digest:
        """Return the digest of the release's image, compared with what its registry has under it.

        Raises:
            TrustError: Nobody who may has signed it, it has no image, or that is not of its tree.
            Unavailable: This host's disk does not take the evidence.
        """
        return await self._releases.image_of(release, source)

    async def no_way_back(self, release: ReleaseRef, source: str) -> str:
        """Return why no slot would be given the known-good release again; empty where one would.

        Also empty where somebody has decided that: it was withdrawn, or is below the security floor.
        """
        try:
            await self._releases.require_way_back(release, source)
        except TrustError as refusal:
            return no_way_back(release, refusal)
        return ""

    def keep(self, release: Digest) -> None:
        """Have the release be admitted from now on without its source: gateways run it and may go back.

        As on a host, it is judged by the time at which it was admitted here: its manifest and its signers'
        keys may have ended since. A revocation and the security floor count at once. Nothing older is refused
        for that: they may run what has failed and only ends its last sessions. Who refuses what is older than
        was promoted are the gateways' agents. One that was never admitted here, as when this driver's folder
        is new, is as good as before.
        """
        if release in self._releases.known_good():
            return
        try:
            self._releases.keep(release)
        except PenstockError:  # its evidence is not here: the next one who asks for it verifies it
            return
