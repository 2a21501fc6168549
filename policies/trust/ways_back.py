"""What is said of a known-good release that would not be started again, and what an operator can do."""

from policies.model.plan import ReleaseRef
from policies.model.refusals import TrustError


def no_way_back(release: ReleaseRef, refusal: TrustError) -> str:
    """Return why there is no way back to what serves, in a sentence: the same one of all its gateways."""
    return (
        f"{release.product} {release.version} serves and would not be started again, so there is no way back "
        f"once it is stopped: have others sign it (penstock release sign {release.digest} --replace), or "
        f"withdraw it and give up the way back (penstock release yank {release.version} --reason TEXT); "
        f"{refusal.code}: {refusal}"
    )
