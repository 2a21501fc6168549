"""Where certificates are given out: a first one for a one-time token, the next for the one before it."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from cryptography import x509
from pydantic import ValidationError

from orchestrator.enrolment.authority import Authority, Issued, key_in
from orchestrator.enrolment.messages import CertificateGiven, EnrolmentAsked, RenewalAsked
from orchestrator.enrolment.names import Certified
from orchestrator.refusals import Refusals
from orchestrator.store.certificates import VIA, Certificates
from policies.model.errors import BadInput, NotAllowed
from policies.model.fleet import GatewayRef

PayloadKeys = Callable[[str], str]
"""Returns the lines of the key file for the gateway of a task queue."""


def no_keys(task_queue: str) -> str:
    """Return no lines: nothing travels sealed."""
    del task_queue
    return ""


class Desk:
    """Gives certificates of one authority, and writes down to whom."""

    def __init__(
        self,
        authority: Authority,
        certificates: Certificates,
        lives: timedelta,
        refusals: Refusals,
        authorities: bytes = b"",
        payload_keys: PayloadKeys = no_keys,
    ) -> None:
        """Give certificates that live so long, and count in `refusals` the tokens that are good for nothing.

        The `authorities` vouch for relays with certificates of others.
        """
        self._authority = authority
        self._certificates = certificates
        self._lives = lives
        self._refusals = refusals
        self._authorities = authority.pem + authorities
        self._payload_keys = payload_keys

    @property
    def authority_pem(self) -> bytes:
        """The authority's own certificate, for everybody."""
        return self._authority.pem

    async def enrol(self, asked: EnrolmentAsked, peer: str) -> CertificateGiven:
        """Return the first certificate of a host.

        Raises:
            NotAllowed: The token is good for nothing, or for another gateway.
            BadInput: The certificate request is none.
        """

        def sign(fleet: str, gateway: str) -> Issued:
            if (fleet, gateway) != (asked.fleet, asked.gateway):
                raise NotAllowed(
                    f"that enrolment token is for another gateway than {asked.fleet}/{asked.gateway}"
                )
            return self._authority.issue_gateway(asked.request, fleet, gateway, self._lives)

        try:
            issued = await asyncio.to_thread(self._certificates.use_enrolment, asked.token, sign, peer)
        except NotAllowed as refusal:
            self._refusals.note(VIA, "enrolment refused", peer, str(refusal))
            raise
        return self._given(issued, GatewayRef(name=asked.gateway, fleet=asked.fleet).task_queue)

    async def renew(self, caller: Certified, shown: x509.Certificate, body: bytes, peer: str) -> bytes:
        """Return the next certificate of whoever has shown this one: the same one, however often it asks.

        Raises:
            NotAllowed: It was revoked, or is from another authority, which renews it itself.
            BadInput: The certificate request is none, or for another key than that of the certificate.
        """
        if not self._authority.has_issued(shown):
            raise NotAllowed(f"the certificate of {caller} is not from this authority, which cannot renew it")
        try:
            asked = RenewalAsked.model_validate_json(body)
        except ValidationError as error:
            raise BadInput(f"what {caller} sent is no request for a certificate") from error

        if key_in(asked.request) != shown.public_key():
            raise BadInput(f"a certificate is renewed for its own key; enrol {caller} anew for another one")

        def sign() -> Issued:
            return self._authority.issue_gateway(asked.request, caller.fleet, caller.gateway, self._lives)

        def sign_again(serial: str, issued_at: datetime, expires: datetime) -> Issued:
            again = self._authority.issue_gateway_again
            return again(asked.request, caller.fleet, caller.gateway, serial, issued_at, expires)

        renew = self._certificates.renew_certificate
        issued = await asyncio.to_thread(
            renew, caller.fleet, caller.gateway, caller.serial, caller.begins, sign, sign_again, peer
        )
        return self._given(issued, caller.task_queue).model_dump_json().encode()

    def _given(self, issued: Issued, task_queue: str) -> CertificateGiven:
        return CertificateGiven(
            certificate=issued.pem,
            authorities=self._authorities.decode(),
            payload_keys=self._payload_keys(task_queue),
        )
