"""Refusals met outside: why what a source sent, or a file on this host, was not accepted.

Their names are verdicts and headings of the runbooks, as those of `policies.model.refusals` are.
Only DownloadFailed is worth another try with the same input.
"""

from typing import ClassVar

from policies.model.errors import BadInput
from policies.model.refusals import TrustError


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


class RunningMismatch(TrustError):
    """A process runs code that its release does not list."""


class PolicyInvalid(BadInput):
    """The trust policy file, or a file it names, is not as it must be."""
