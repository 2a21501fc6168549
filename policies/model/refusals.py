"""Refusals of the trust part: why a release, a download or a change was not accepted.

The class names are the verdicts of the attack list and the headings of the runbooks.
Only DownloadFailed is worth another try with the same input.
"""

from typing import ClassVar

from policies.model.errors import BadInput, Refused


class TrustError(Refused):
    """Something could not be shown to come, unchanged, from the people the trust policy allows.

    `reason` narrows the verdict down in one stable word, for instance `expired` or `window`.
    """

    def __init__(self, sentence: str, *, reason: str = "") -> None:
        super().__init__(sentence)
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


class DigestMismatch(TrustError):
    """Bytes that are not the ones the manifest names."""


class SizeExceeded(TrustError):
    """A source sends more than the manifest announces or the policy allows."""


class TransportRefused(TrustError):
    """A source answers in a way that is not accepted: another host, an encoding, a wrong range."""


class DownloadFailed(TrustError):
    """A source broke off, was too slow or was not there; what arrived is kept for the next try."""

    retryable: ClassVar[bool] = True


class ArchiveRefused(TrustError):
    """An archive holds anything but the files the manifest lists."""


class PolicyChanged(TrustError):
    """The trust policy is not the one that was agreed on when the change was planned."""


class ApprovalRequired(TrustError):
    """A change outside the whitelist that needs one more person's approval."""


class RunningMismatch(TrustError):
    """A process runs code that its release does not list."""


class PolicyInvalid(BadInput):
    """The trust policy file, or a file it names, is not as it must be."""
