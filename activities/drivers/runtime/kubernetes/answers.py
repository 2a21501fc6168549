"""What an answer of the API server means to whoever asked, where no other error says it."""

from policies.model.errors import Refused, Unavailable


class Absent(Refused):
    """There is no object of that name; whoever asks makes a sentence of it."""


class Stale(Unavailable):
    """The object has changed since it was read; it is read again."""


class Unread(Unavailable):
    """The server did as it was told, and what it said of it is not to be understood; read back."""


class GoneBy(Unavailable):
    """What a list began with is not kept any more; it begins again."""
