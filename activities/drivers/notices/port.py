"""The port of sinks: what every kind of receiver has to be able to do, and how it fails."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Protocol

from policies.model.errors import Unavailable
from policies.model.notice import Delivery, Occasion

DEADLINE = timedelta(seconds=15)
"""How long one receiver may take for one notice, whatever it does meanwhile."""

THREADS = ThreadPoolExecutor(16, thread_name_prefix="notices")
"""In which receivers are told: one that is slow delays no step of the worker, and no other thread."""

ONCE = frozenset({Occasion.SAID, Occasion.SETTLED})
"""The occasions of a sink whose readers read all that comes: what repeats says nothing new to them."""


class Undelivered(Unavailable):
    """A receiver did not take a notice; the sentence says why, without what is secret.

    `reached` says whether it answered at all: what one notice is refused for may be that notice's alone.
    """

    def __init__(self, sentence: str, *, reached: bool = False) -> None:
        super().__init__(sentence)
        self.reached = reached


class Sink(Protocol):
    """One receiver of notices."""

    repeats_after: timedelta | None
    """After how long it has to hear again of what is still so; None when once is enough."""
    occasions: frozenset[Occasion]
    """What it is told; everything else `telling` keeps from it."""

    def ready(self) -> None:
        """Read every file of the sink, and tell nobody anything.

        Raises:
            BadInput: A file is not as it must be; no sentence says what is in it.
        """

    async def tell(self, delivery: Delivery) -> str:
        """Tell the receiver; return what it answered, in a line.

        A repeat is recognised by the receiver, since it has the same key.

        Raises:
            Undelivered: It did not take it.
            BadInput: A file of the sink is not as it must be.
        """
