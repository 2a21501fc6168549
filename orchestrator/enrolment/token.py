"""What a person carries to a host: a one-time token, and by what the host recognises the installation."""

from typing import NamedTuple

from policies.model.errors import BadInput

FINGERPRINT_DIGITS = 64


class Carried(NamedTuple):
    """The token, and the fingerprint of the authority that the host may trust at first contact."""

    token: str
    fingerprint: str

    def __str__(self) -> str:
        """As it is printed and typed."""
        return f"{self.token}.{self.fingerprint}"


def carried(typed: str) -> Carried:
    """Return what somebody typed.

    Raises:
        BadInput: It is not whole.
    """
    token, dot, fingerprint = typed.strip().partition(".")
    if not dot or len(fingerprint) != FINGERPRINT_DIGITS or set(fingerprint) - set("0123456789abcdef"):
        raise BadInput(
            "that is no enrolment token, or only a part of one; paste all that penstock gateway enrol printed"
        )
    return Carried(token, fingerprint)
