"""Answers that a driver does not read: their instance is alive and serves its users, unlike a silent one."""

from collections.abc import Iterator
from contextlib import contextmanager


class Unreadable(ValueError):
    """An answer has a form that its driver does not read; the text names the part, and no user's data."""


def unread_part(error: KeyError | ValueError | TypeError) -> str:
    """Return which part of an answer is not read, without any of its values."""
    if isinstance(error, Unreadable):
        return str(error)
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else "a value of another form"


class Unread:
    """Which instances answered the last question about their sessions in a form that is not read."""

    def __init__(self, product: str) -> None:
        """Take the name by which texts call the daemon."""
        self._product = product
        self._slots: dict[str, str] = {}

    def of(self, slot: str) -> str:
        """Return in one line what the slot's instance answers; empty if it is silent or read."""
        return self._slots.get(slot, "")

    @contextmanager
    def reading(self, slot: str) -> Iterator[None]:
        """Note whether the slot's answer is read here; an answer of another form ends the block."""
        unread = ""
        try:
            yield
        except (KeyError, ValueError, TypeError) as error:
            unread = unread_part(error)
        finally:
            self._slots[slot] = unread and (
                f"{self._product} answers in a form that penstock does not read ({unread})"
            )
