"""What a caller may ask of gateways' certificates: a token for the first one, and an end to all of them."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from orchestrator.enrolment.authority import fingerprint_in
from orchestrator.enrolment.token import Carried
from orchestrator.store.certificates import Certificates
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.value import Value


class EnrolmentToken(Value):
    """What is carried to a host, for the only time, and until when it is good."""

    token: str
    expires: datetime


@dataclass(frozen=True)
class EnrolmentService:
    """Who of an installation's gateways and clusters may have a certificate."""

    certificates: Certificates
    authority: Path
    """Folder of the authority, whose fingerprint travels with a token; its certificate there is enough."""

    async def enrol(self, fleet: Fleet, gateway: str, person: str) -> EnrolmentToken:
        """Return a one-time token for the gateway's host, or for the driver of a cluster with that name.

        Raises:
            BadInput: The fleet has no such gateway or cluster, or the authority cannot be read.
        """
        if gateway not in {known.name for known in fleet.gateways} | {*fleet.clusters}:
            seen = Offer(verb=Verb.SESSIONS, fleet=fleet.name)
            raise BadInput(f"{fleet.name} has no gateway {gateway}, and no cluster of that name", seen)
        fingerprint = await asyncio.to_thread(fingerprint_in, self.authority)
        token, expires = await asyncio.to_thread(
            self.certificates.make_enrolment, fleet.name, gateway, person
        )
        return EnrolmentToken(token=str(Carried(token, fingerprint)), expires=expires)

    async def revoke(self, fleet: str, gateway: str, person: str, reason: str) -> int:
        """Make all certificates of the gateway worthless; return how many of our own it had.

        One that no file describes any more can be revoked, too: its certificate outlives its line there.
        """
        return await asyncio.to_thread(self.certificates.revoke_certificates, fleet, gateway, person, reason)
