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
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ApplicationError):
        cause = cause.__cause__
    if cause is None or cause.type != Fenced.__name__:
        return None
    found = next((detail.get("epoch") for detail in cause.details if isinstance(detail, dict)), None)
    return found if isinstance(found, int) and 0 <= found < LAST_EPOCH else None
