"""What stands in certificates: which gateway an agent is of, and that a relay is one."""

import re
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from policies.model.errors import BadInput
from policies.model.fleet import GatewayRef

RENEW = "/penstock.Relay/Renew"
"""The call by which a host with a certificate gets the next one."""

RELAY_NAME = "relay.penstock"
"""The name in every relay's certificate, wherever it is reached: agents ask for any relay of ours."""

_NAME = r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?"
_URI = re.compile(f"penstock://gateway/(?P<fleet>{_NAME})/(?P<name>{_NAME})")


@dataclass(frozen=True)
class Certified:
    """Whose a certificate is, which one it is, and from when until when it is good."""

    fleet: str
    gateway: str
    serial: str
    """In hexadecimal, without a sign or leading zeros."""
    begins: datetime
    expires: datetime

    @property
    def task_queue(self) -> str:
        """The only queue that its holder may poll."""
        return GatewayRef(name=self.gateway, fleet=self.fleet).task_queue

    def __str__(self) -> str:
        """How logs and the audit record name it."""
        return f"{self.fleet}/{self.gateway}"


def uri_of(fleet: str, gateway: str) -> str:
    """Return how a certificate names a gateway."""
    return f"penstock://gateway/{fleet}/{gateway}"


def certified(certificate: x509.Certificate) -> Certified:
    """Return whose certificate this is; its signature is not looked at.

    Raises:
        BadInput: It names no gateway, or more than one.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        said = found.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        said = []
    named = [match for uri in said if (match := _URI.fullmatch(uri))]
    if len(named) != 1 or len(said) != 1:
        raise BadInput(
            f"the certificate names no gateway; it needs exactly one URI like {uri_of('FLEET', 'NAME')}"
        )
    return Certified(
        fleet=named[0]["fleet"],
        gateway=named[0]["name"],
        serial=f"{certificate.serial_number:x}",
        begins=certificate.not_valid_before_utc,
        expires=certificate.not_valid_after_utc,
    )
