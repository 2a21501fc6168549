"""Refusals met outside: why what a source sent, or a file on this host, was not accepted.

Their names are verdicts and headings of the runbooks, as those of `policies.model.refusals` are.
Only DownloadFailed is worth another try with the same input.
"""

import logging
from collections.abc import Callable
from typing import ClassVar

from policies.model.errors import BadInput, PenstockError, Unavailable
from policies.model.refusals import TrustError

Hears = Callable[[str, str], None]
"""Hears of what was refused on this side: what it was, and the sentence that says why."""

_log = logging.getLogger(__name__)


def only_logged(action: str, sentence: str) -> None:
    """Write a refusal into the log, where no record is kept."""
    _log.warning("%s: %s", action, sentence)


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


def in_our_words(error: Exception, what: str) -> PenstockError:
    """Return the error if it is ours, else the one of ours that it means to somebody who asked for `what`.

    A library that stumbles over what a stranger sent is a refusal; a disk that takes no bytes is no verdict.
    """
    match error:
        case PenstockError():
            return error
        case OSError():
            return Unavailable(f"this host could not keep {what}: {error}; look at its disk, then try again")
        case _:
            told = f"{type(error).__name__}: {error}"[:200]
            return TransportRefused(
                f"{what} sends something that cannot be read ({told}); ask its publisher", reason="foreign"
            )
