"""Refusals of the trust part: why a release or a change was not accepted.

The class names are the verdicts of the attack list and the headings of the runbooks.
"""

from policies.model.errors import Refused
from policies.model.offer import Offer


class TrustError(Refused):
    """Something could not be shown to come, unchanged, from the people the trust policy allows.

    `reason` narrows the verdict down in one stable word, for instance `expired` or `window`.
    """

    def __init__(self, sentence: str, *offers: Offer, reason: str = "") -> None:
        super().__init__(sentence, *offers)
        self.reason = reason


class ManifestInvalid(TrustError):
    """A signed document is not strictly what its format says."""


class WrongStatementType(TrustError):
    """A signed document is of another kind than the one expected here."""


class SubjectMismatch(TrustError):
    """A statement speaks about other bytes than the ones it came with."""


class SignatureMissing(TrustError):
    """A document came without any signature."""


class SignatureInvalid(TrustError):
    """A signature does not verify against the roots of the trust policy."""


class WeakAlgorithm(TrustError):
    """A signature or digest uses an algorithm that can be forged."""


class SignerNotAllowed(TrustError):
    """A good signature by somebody the trust policy does not name for this product and channel."""


class SignerRevoked(TrustError):
    """A good signature by a key, certificate or person that was withdrawn."""


class ThresholdNotMet(TrustError):
    """Fewer distinct people than required signed exactly these bytes."""


class ScopeMismatch(TrustError):
    """A good release, but of another product or channel than the fleet's."""


class DowngradeRefused(TrustError):
    """A release older than what was already promoted, and not a known-good one."""


class Expired(TrustError):
    """A signed document that is no longer valid."""


class ReplayDetected(TrustError):
    """A channel index older than one that was already seen."""


class NotOffered(TrustError):
    """A good release that its channel does not list as current, and that was never known-good here."""


class DoesNotFit(TrustError):
    """A good release that its own signers did not mean for this host, or for what serves there now."""


class DigestMismatch(TrustError):
    """Bytes that are not the ones the manifest names."""


class ApprovalRequired(TrustError):
    """A plan that more people must approve than have."""
