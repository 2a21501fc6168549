"""Which credentials a host has for its instances, as far as it knows without asking anybody else."""

from collections.abc import Mapping
from itertools import islice

from activities.drivers.daemon.port import Secret
from policies.model.errors import BadInput
from policies.model.instance import GivenCredential

MOST = 100
"""Credentials that a gateway's answer names."""
ELSEWHERE = "vault"
"""The kind of reference that another host is asked for."""


def given(credentials: Mapping[str, Secret]) -> tuple[GivenCredential, ...]:
    """Return what the agent's file names, each with why it cannot be read now; it may block."""
    return tuple(_given(name, read) for name, read in islice(sorted(credentials.items()), MOST))


def _given(name: str, read: Secret) -> GivenCredential:
    if str(read).partition(":")[0] == ELSEWHERE:
        return GivenCredential(name=name, elsewhere=True)
    try:
        read()
    except BadInput as error:
        return GivenCredential(name=name, missing=str(error))
    return GivenCredential(name=name)
