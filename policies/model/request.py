"""Requests that are carried out once."""

from policies.model.value import Value


class Answer(Value):
    """What was answered: an HTTP status and a body as it was sent."""

    status: int
    body: str
