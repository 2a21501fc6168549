"""A gateway's host and its certificate: the key is made here and never leaves, the rest comes from a relay.

First contact trusts nobody but the fingerprint that a person carried here: the relay tells its authority to
everybody, and only an authority of that fingerprint is believed when the token is shown.
"""

import json
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from pydantic import ValidationError

from activities.drivers import header_lines  # noqa: F401 - the pattern that it sets
from activities.drivers.private_files import read_private, write_private
from orchestrator.enrolment.authority import fingerprint_of, key_pem, new_key
from orchestrator.enrolment.messages import CertificateGiven, EnrolmentAsked, RenewalAsked
from orchestrator.enrolment.names import RELAY_NAME, RENEW, Certified, certified
from orchestrator.enrolment.token import Carried
from policies.model.errors import BadInput, NotAllowed, Unavailable

PATIENCE_SECONDS = 20.0
MOST_BYTES = 1 << 20
TOLD = 16
"""Digits of a fingerprint that sentences tell, and that nobody else's begins with by chance."""
NOT_NOW = ("certificate is not yet valid", "certificate has expired")
"""What the TLS library says when it is not the time of a certificate."""
RENEWED_AT = 2 / 3
"""Of a certificate's life, when the next one is asked for."""

RESTED = 1 / 6
"""Of a certificate's life, how long it lies here at least before the next one is asked for.

To a clock that is weeks ahead each new certificate is due at once, and of too many a gateway gets none.
"""

ROOM = 64 << 10
"""Bytes that each file can grow to, before anything is asked for."""


@dataclass(frozen=True)
class HostFiles:
    """Where a host keeps what it shows to relays and whom it trusts, and which gateway it is."""

    fleet: str
    gateway: str
    certificate: Path
    key: Path
    authority: Path
    payload_keys: Path | None = None
    whose: str = field(default="agent", kw_only=True)
    """The group of commands that reads the file which says all this."""

    def held(self) -> tuple[x509.Certificate, Certified]:
        """Return the certificate that is there.

        Raises:
            BadInput: There is none, or it is another gateway's.
        """
        try:
            found = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except OSError as error:
            raise BadInput(
                f"{self.certificate} cannot be read: {error.strerror}; penstock {self.whose} enrol gets one"
            ) from error
        except ValueError as error:
            raise BadInput(
                f"{self.certificate} is no certificate in PEM; penstock {self.whose} enrol gets one"
            ) from error
        whose = certified(found)
        if (whose.fleet, whose.gateway) != (self.fleet, self.gateway):
            raise BadInput(
                f"{self.certificate} is the certificate of {whose}, and this is {self.fleet}/{self.gateway}"
            )
        return found, whose

    def key_held(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that is there; BadInput when there is none, or others can read it."""
        content = read_private(self.key, f"the {self.whose}'s key")
        try:
            found = load_pem_private_key(content, None)
        except ValueError as error:
            raise BadInput(f"{self.key} is no key in PEM; penstock {self.whose} enrol makes one") from error
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise BadInput(f"{self.key} is no ECDSA key; renew this certificate where it was made")
        return found

    def require_pair(self) -> None:
        """Refuse a certificate that cannot be shown to a relay.

        Raises:
            BadInput: There is none, it is another gateway's, or the key is another one's.
        """
        found, _ = self.held()
        if self.key_held().public_key() != found.public_key():
            raise BadInput(
                f"{self.key} is not the key of {self.certificate}; restore both, or enrol this host anew"
            )

    def renew_at(self, now: datetime) -> datetime:
        """Return when the next certificate is due: at two thirds of the life of the one that is there.

        One that came just now, by this host's clock, rests for a while, whatever that clock says of its life.
        """
        found, _ = self.held()
        life = found.not_valid_after_utc - found.not_valid_before_utc
        came = datetime.fromtimestamp(self.certificate.stat().st_mtime, UTC)
        due = found.not_valid_before_utc + life * RENEWED_AT
        # A clock that was set back since then says nothing of how long it lies there.
        return due if came > now else max(due, came + life * RESTED)

    @property
    def _next_key(self) -> Path:
        return self.key.with_name(f".{self.key.name}.next")

    def settle(self) -> None:
        """Have the key in its file that is of the certificate, where keeping both was cut short between them.

        Raises:
            BadInput: The key's file cannot be written.
        """
        try:
            following = load_pem_private_key(self._next_key.read_bytes(), None).public_key()
            fits = following == self.held()[0].public_key()
        except (OSError, ValueError, BadInput):  # no other key, or one whose certificate is not kept yet
            return
        if fits:
            try:
                self._next_key.replace(self.key)
            except FileNotFoundError:  # somebody else, who keeps or uses both, has done so just now
                return
            except OSError as error:
                raise BadInput(f"{self.key} cannot be written: {error.strerror}; check the path") from error

    def keep(self, given: CertificateGiven, key: bytes | None = None) -> Certified:
        """Have what was given in the files; return whose certificate it is.

        Raises:
            BadInput: It is not this gateway's, or a file cannot be written.
        """
        found = x509.load_pem_x509_certificate(given.certificate.encode())
        whose = certified(found)
        if (whose.fleet, whose.gateway) != (self.fleet, self.gateway):
            raise BadInput(
                f"what came is the certificate of {whose}, and this is {self.fleet}/{self.gateway}"
            )
        if key is not None:
            _write(self._next_key, key, of=self.key)
        _write(self.authority, given.authorities.encode())
        if given.payload_keys and self.payload_keys is not None:
            _write(self.payload_keys, given.payload_keys.encode())
        _write(self.certificate, given.certificate.encode())  # agents look at this one, and whose key it is
        self.settle()
        if given.payload_keys and self.payload_keys is None:
            raise BadInput(
                f"the installation seals its orders, and the {self.whose}'s file names no place for the "
                f"keys: add `payload_keys: PATH` to it, then type penstock {self.whose} renew"
            )
        return whose

    def require_room(self) -> None:
        """Return if what a relay gives can be kept here; said before it is asked for anything.

        Raises:
            BadInput: A file cannot be written.
        """
        paths = [self.key, self.certificate, self.authority]
        proofs = {path: path.with_name(f".{path.name}.proof") for path in [*paths, self.payload_keys] if path}
        try:
            for path, proof in proofs.items():
                _write(proof, bytes(ROOM), of=path)
        finally:
            for proof in proofs.values():
                with suppress(OSError):
                    proof.unlink()


def enrol(files: HostFiles, at: str, carried: Carried) -> Certified:
    """Get the host's first certificate from the relay there, for a key that is made here.

    Raises:
        BadInput: The relay is not of the installation that made the token, or a file cannot be written.
        NotAllowed: The token is good for nothing, or for another gateway.
        Unavailable: The relay does not answer.
    """
    files.require_room()
    authority = _authority_at(at, carried.fingerprint)
    key = new_key()
    asked = EnrolmentAsked(
        token=carried.token, request=_request(key), fleet=files.fleet, gateway=files.gateway
    )
    trusting = ssl.create_default_context(cadata=authority.public_bytes(Encoding.PEM).decode())
    with httpx.Client(verify=trusting, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        answer = _said(client, "POST", f"https://{at}/v1/enrol", at, content=asked.model_dump_json())
    try:
        given = CertificateGiven.model_validate_json(answer)
    except ValidationError as error:
        raise Unavailable(f"the relay at {at} answered with something else than a certificate") from error
    return files.keep(given, key_pem(key))


def renew(files: HostFiles, at: str, server_name: str = RELAY_NAME) -> Certified:
    """Get the host's next certificate from the relay there, which knows it by the one that it has.

    Raises:
        BadInput: The host has no certificate, the one it has ended, or a file cannot be written.
        NotAllowed: The certificate was revoked, or comes from an authority of your own.
        Unavailable: The relay does not answer.
    """
    import grpc  # noqa: PLC0415 - only who renews needs it, once in weeks, and it takes ten megabytes

    files.settle()
    found, _ = files.held()
    files.require_room()
    key = files.key_held()
    credentials = grpc.ssl_channel_credentials(
        files.authority.read_bytes(), key_pem(key), files.certificate.read_bytes()
    )
    options = (("grpc.ssl_target_name_override", server_name),)
    asked = RenewalAsked(request=_request(key)).model_dump_json().encode()
    with grpc.secure_channel(at, credentials, options=options) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(RENEW)
        try:
            answer = ask(asked, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            call: grpc.Call = error  # type: ignore[assignment]  # the stubs do not say that it is both
            if call.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise NotAllowed(call.details() or "the relay refuses") from error
            # Relays refuse it before any answer. It is asked all the same: a host's clock may be ahead.
            if found.not_valid_after_utc <= (now := datetime.now(UTC)):
                raise BadInput(_ended(files, found.not_valid_after_utc, now)) from error
            raise Unavailable(f"the relay at {at} gave no certificate: {call.details()}") from error
    return files.keep(CertificateGiven.model_validate_json(answer))


def _ended(files: HostFiles, at: datetime, now: datetime) -> str:
    """Return that relays let this host in no more, and how it gets another certificate."""
    return (
        f"the certificate in {files.certificate} ended on {at:%Y-%m-%d %H:%M} UTC, by this host's clock of "
        f"{now:%Y-%m-%d %H:%M} UTC, and no relay renews it: enrol this host anew. On the control host: "
        f"`penstock gateway enrol {files.fleet} {files.gateway}`; here, with its token: "
        f"`penstock {files.whose} enrol --config FILE --at RELAY:PORT`"
    )


def take(files: HostFiles, certificate: Path, key: Path, authority: Path) -> Certified:
    """Take a certificate of an authority of your own from these files.

    Raises:
        BadInput: It is not this gateway's, its key is another one, or it has expired.
    """
    given = CertificateGiven(certificate=_text(certificate), authorities=_text(authority))
    content = read_private(key, "the key")
    try:
        found = x509.load_pem_x509_certificate(given.certificate.encode())
        matches = load_pem_private_key(content, None).public_key() == found.public_key()
    except (ValueError, TypeError) as error:
        raise BadInput(f"{certificate} and {key} are no certificate with its key, in PEM") from error
    if not matches:
        raise BadInput(f"{key} is not the key of {certificate}")
    if found.not_valid_after_utc <= datetime.now(UTC):
        raise BadInput(f"{certificate} has expired; take a newer one")
    return files.keep(given, content)


def _authority_at(at: str, fingerprint: str) -> x509.Certificate:
    # Whoever answers here is nobody yet: what comes is compared with the fingerprint, and nothing is shown.
    unproven = ssl.create_default_context()
    unproven.check_hostname = False
    unproven.verify_mode = ssl.CERT_NONE
    with httpx.Client(verify=unproven, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        content = _said(client, "GET", f"https://{at}/v1/authority", at)
    try:
        found = x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise Unavailable(f"what answers at {at} is no relay; say its enrolment port with --at") from error
    if fingerprint_of(found)[:TOLD] == fingerprint[:TOLD] and fingerprint_of(found) != fingerprint:
        raise BadInput(
            "the token was copied wrongly at its end, where it tells the relay's fingerprint; paste all that "
            "penstock gateway enrol printed. Nothing was shown to the relay"
        )
    if fingerprint_of(found) != fingerprint:
        raise BadInput(
            f"the relay at {at} is not of the installation that made this token: its authority is "
            f"{fingerprint_of(found)[:TOLD]}…, the token's {fingerprint[:TOLD]}…; nothing was shown to it"
        )
    return found


def _said(client: httpx.Client, method: str, url: str, at: str, content: str | None = None) -> bytes:
    try:
        with client.stream(method, url, content=content, extensions={"sni_hostname": RELAY_NAME}) as answer:
            body = b""
            for part in answer.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise Unavailable(f"what answers at {at} says more than a relay would")
    except httpx.InvalidURL as error:
        raise BadInput(f"{at} is no address; write HOST:PORT") from error
    except httpx.HTTPError as error:
        if any(words in str(error) for words in NOT_NOW):
            raise BadInput(
                f"this host's clock says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, and the relay's certificate "
                f"at {at} is not good then: set the clock, and type the same token again"
            ) from error
        raise Unavailable(
            f"the relay at {at} does not answer: {error}; check the address and its port"
        ) from error
    if answer.is_success:
        return body
    kind = {403: NotAllowed, 400: BadInput}.get(answer.status_code, Unavailable)
    raise kind(_sentence(body) or f"the relay at {at} answered {answer.status_code}")


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["sentence"])
    except (ValueError, KeyError, TypeError):
        return ""


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a certificate request; it names nobody, since the relay knows who it is from."""
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return asked.public_bytes(Encoding.PEM).decode()


def _write(path: Path, content: bytes, of: Path | None = None) -> None:
    """Have this content there for the host alone; it is `of` another file as far as anybody hears of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, content)
    except OSError as error:
        why = f"{of or path} cannot be written: {error.strerror}"
        raise BadInput(f"{why}; check the path, and whether its disk has room") from error


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}; check the path") from error
