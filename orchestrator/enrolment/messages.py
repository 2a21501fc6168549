"""What hosts and relays say to each other about certificates."""

from typing import Annotated

from pydantic import Field

from policies.model.value import Value

Pem = Annotated[str, Field(max_length=16_384)]


class EnrolmentAsked(Value):
    """A host without a certificate: its one-time token and its certificate request."""

    token: Annotated[str, Field(max_length=200)]
    request: Pem
    fleet: Annotated[str, Field(max_length=63)]
    gateway: Annotated[str, Field(max_length=63)]


class RenewalAsked(Value):
    """A host with a certificate, which asks for the next one."""

    request: Pem


class CertificateGiven(Value):
    """What a host gets: its certificate, whom it may trust, and what opens its orders."""

    certificate: Pem
    authorities: Annotated[str, Field(max_length=262_144)]
    payload_keys: Annotated[str, Field(max_length=16_384)] = ""
    """Lines of a key file, empty where nothing travels sealed."""
