"""How errors travel through the engine: permanent ones by name, everything else to be tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.exceptions import ApplicationError

from policies.words.errors import PenstockError


@contextmanager
def as_application_errors() -> Iterator[None]:
    """Turn our errors into the engine's, with code and sentence; retryable only where they say so."""
    try:
        yield
    except PenstockError as error:
        raise ApplicationError(str(error), type=error.code, non_retryable=not error.retryable) from error
