"""How errors travel through the engine: permanent ones by name, everything else to be tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from policies.model.errors import Fenced, PenstockError
from policies.model.operation import LAST_EPOCH
from policies.model.value import sentence


@contextmanager
def as_application_errors() -> Iterator[None]:
    """Turn our errors into the engine's, with code and sentence; retryable only where they say so."""
    try:
        yield
    except PenstockError as error:
        raise ApplicationError(
            sentence(str(error)), *error.details, type=error.code, non_retryable=not error.retryable
        ) from error


def epoch_seen(error: BaseException) -> int | None:
    """Return the newest epoch that the refusing host has seen, None when it names none that there can be."""
    found = _said_by_fence(error, "epoch")
    return found if isinstance(found, int) and 0 <= found < LAST_EPOCH else None


def rollout_seen(error: BaseException) -> str:
    """Return the change that the refusing host obeys, empty when it names none."""
    found = _said_by_fence(error, "rollout")
    return found if isinstance(found, str) else ""


def _said_by_fence(error: BaseException, what: str) -> object:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is None or cause.type != Fenced.__name__:
        return None
    return next((detail.get(what) for detail in cause.details if isinstance(detail, dict)), None)
