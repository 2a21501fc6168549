"""People of the lab who are known by certificates, and what gateways and the probe are given for that."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.lab.credentials import LEGACY_SHARE, PROBE, Credentials, People, write
from deploy.lab.topology import TARGET4, Host

STRANGER = "stranger"
"""Whose certificate nobody has signed."""


class CertifiedPeople:
    """A certificate for everybody, of an authority of today, or for a tenth of them of years ago."""

    in_one_file = False
    """Whether the daemon reads both authorities from one file."""

    def issue(self, credentials: Credentials, names: Sequence[str]) -> None:
        """Make certificates of everybody and of the probe, all with one key, and of somebody unknown."""
        today, years_ago, nobody = (People.of(words) for words in ("today", "years ago", "nobody"))
        folder = credentials.folder / "people"
        folder.mkdir(mode=0o700, exist_ok=True)
        write(credentials.folder / "people.key", today.key)
        write(credentials.folder / "stranger.key", nobody.key)
        for number, name in enumerate([PROBE, *names]):
            signer = years_ago if number % LEGACY_SHARE == 0 else today
            write(folder / f"{name}.pem", signer.certify(name, today.public))
        write(folder / f"{STRANGER}.pem", nobody.certify(STRANGER, nobody.public))
        both = today.authority + years_ago.authority
        write(credentials.folder / "people.pem", both if self.in_one_file else today.authority)
        write(credentials.folder / "people-legacy.pem", years_ago.authority)

    def given(self, issued: Credentials) -> Mapping[str, Path]:
        """Return whose certificates are let in, now and years ago, and the gateways' own."""
        return {
            "authority": issued.folder / "people.pem",
            "authority_legacy": issued.folder / "people-legacy.pem",
            "certificate": issued.certificate,
            "key": issued.key,
        }

    def probe(self, issued: Credentials, host: Host) -> Mapping[str, str]:  # noqa: ARG002 - one may need it
        """Return somebody with a certificate."""
        return {
            "user": PROBE,
            "certificate": str(issued.folder / "people" / f"{PROBE}.pem"),
            "key": str(issued.folder / "people.key"),
            "authority": str(issued.authority),
            "target": TARGET4,
        }
