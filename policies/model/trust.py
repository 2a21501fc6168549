"""The trust policy: who may sign what, how many of them it takes, and where releases may come from."""

from enum import StrEnum
from itertools import chain
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, model_validator

from policies.model.origin import Origin, keeps_secrets
from policies.model.release import Sha256, SignedWord
from policies.model.revocation import (
    RevokedFingerprint,
    RevokedIdentity,
    RevokedSerial,
    RevokedSha256,
    same_identity,
)
from policies.model.value import Digest, Name, Value


class SignatureKind(StrEnum):
    """The ways to sign a statement; all sign the same bytes."""

    SIGSTORE = "sigstore"
    OPENPGP = "openpgp"
    CMS = "cms"


class TrustRoot(SignedWord):
    """A Sigstore instance: its trusted root file, pinned by digest."""

    trusted_root: str
    sha256: Sha256


class PinnedCertificate(SignedWord):
    """An OpenPGP certificate file and the fingerprint it must have."""

    cert: str
    fingerprint: str = Field(pattern=r"^[0-9A-F]{40}$|^[0-9A-F]{64}$")


class EnterpriseAuthority(SignedWord):
    """An enterprise CA: its root certificates and those of its time stamps, as PEM files."""

    roots: str
    tsa: str | None = None


class Signer(SignedWord):
    """Somebody who may sign: exactly one of a Sigstore identity, an OpenPGP key or a CA's subject.

    Two signers with the same `person` count once; without one, two with the same identity do.
    """

    sigstore: str | None = None
    issuer: str | None = None
    identity: str | None = None
    identity_prefix: str | None = None
    openpgp: str | None = None
    cms: str | None = None
    person: Annotated[str, Field(pattern=r"\S")] | None = None

    @property
    def kind(self) -> SignatureKind:
        """How this signer signs."""
        found = next(kind for kind in SignatureKind if getattr(self, kind) is not None)
        return SignatureKind(found)

    @property
    def shown(self) -> str:
        """The signer as the policy names it."""
        return self.identity or self.identity_prefix or f"the openpgp signer {self.openpgp}"

    def seat_of(self, identity: str) -> str:
        """Return whose seat a signature of this identity takes."""
        return same_identity(self.person or self.identity_prefix or identity)

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Signer":
        if sum(x is not None for x in (self.sigstore, self.openpgp, self.cms)) != 1:
            raise ValueError("a signer names exactly one of sigstore, openpgp and cms")
        named = sum(x is not None for x in (self.identity, self.identity_prefix))
        if named != (0 if self.openpgp else 1):
            raise ValueError("a sigstore or cms signer has one identity or prefix, an openpgp one none")
        if (self.issuer is not None) != (self.sigstore is not None):
            raise ValueError("a sigstore signer has an issuer, others have none")
        if self.identity_prefix is not None and not self.identity_prefix.endswith("@refs/tags/"):
            raise ValueError("identity_prefix is for workflow identities and ends with @refs/tags/")
        return self


class Requirement(SignedWord):
    """How many distinct people of a group must have signed."""

    group: str
    count: int = Field(default=1, ge=1)


class Rule(SignedWord):
    """Who signs the releases of one product and channel."""

    product: Name
    channel: Name
    groups: dict[str, tuple[Signer, ...]]
    require: tuple[Requirement, ...] = Field(min_length=1)
    index: Literal["required", "none"] = "required"
    index_group: str | None = None
    max_age_days: int = Field(default=180, ge=1)
    security_floor: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _groups_exist(self) -> "Rule":
        for requirement in self.require:
            if len(self.groups.get(requirement.group, ())) < requirement.count:
                raise ValueError(f"group {requirement.group} has fewer than {requirement.count} signers")
        if self.index == "required" and self.index_group not in self.groups:
            raise ValueError("index_group must name the group that signs the channel index")
        return self

    @model_validator(mode="after")
    def _nobody_fills_two_seats(self) -> "Rule":
        """Two keys of one person cannot be told from two people's unless the policy says whose they are."""
        wanted = {requirement.group for requirement in self.require}
        signers = [signer for group in sorted(wanted) for signer in self.groups.get(group, ())]
        seats = sum(requirement.count for requirement in self.require)
        kinds = {signer.kind for signer in signers}
        if seats > 1 and (len(kinds) > 1 or SignatureKind.OPENPGP in kinds):
            for signer in signers:
                if signer.person is None:
                    raise ValueError(
                        f"{signer.shown} has no person: where {seats} people sign and one of them may have a "
                        "key of another kind too, say of each who it is, such as `person: ana`"
                    )
        return self


class Revoked(SignedWord):
    """What is no longer trusted, whatever signatures say; each in the spelling that openssl or gpg prints.

    Serial numbers are hexadecimal. What cannot be one of these is refused with the whole policy.
    """

    manifests: tuple[RevokedSha256, ...] = ()
    cert_serials: tuple[RevokedSerial, ...] = ()
    spki_sha256: tuple[RevokedSha256, ...] = ()
    openpgp: tuple[RevokedFingerprint, ...] = ()
    identities: tuple[RevokedIdentity, ...] = ()


class ApprovalRule(SignedWord):
    """How many people must approve a kind of change, for how long, and which configuration keys need none.

    Without `ttl_minutes` an approval is good for four hours.
    """

    count: int = Field(ge=0)
    unless_keys_in: tuple[str, ...] = ()
    reason_required: bool = False
    ttl_minutes: int | None = Field(default=None, ge=1)


class ApprovalRules(SignedWord):
    """Approvals by kind of change."""

    binary_only: ApprovalRule = ApprovalRule(count=0)
    config: ApprovalRule = ApprovalRule(count=2)
    credentials: ApprovalRule = ApprovalRule(count=2)
    trust_policy_change: ApprovalRule = ApprovalRule(count=2)
    override_downgrade: ApprovalRule = ApprovalRule(count=2, reason_required=True, ttl_minutes=60)
    automatic_rollback: ApprovalRule = ApprovalRule(count=0)


SecretReference = Annotated[str, Field(pattern=r"^(?:file|env|vault):")]
"""Where a secret is: `file:PATH`, `env:NAME` or `vault:PATH#FIELD`."""


class Sources(SignedWord):
    """Where releases may come from: origins such as `https://repo.corp.example:443`, and limits.

    `credentials` names for each origin that wants one a secret (`file:`, `env:` or `vault:`): a bearer token
    for HTTP, `user:password` for a registry. It is sent to that origin alone; a token service of another
    origin needs a line of its own. `credential` is short for that where `allow` has one origin only. By plain
    http no secret leaves this machine. `authorities` is a PEM file of certificates to trust for TLS instead
    of the system's. `deadline_s` is for all of a release together.
    """

    allow: tuple[Origin, ...] = ()
    max_blob_mib: int = Field(default=2048, ge=1)
    deadline_s: float = Field(default=900.0, gt=0)
    credential: SecretReference | None = None
    credentials: dict[Origin, SecretReference] = {}
    authorities: str | None = None

    @property
    def secrets(self) -> dict[Origin, SecretReference]:
        """Where the secret of each origin is that has one."""
        return self.credentials | ({self.allow[0]: self.credential} if self.credential else {})

    @model_validator(mode="after")
    def _secrets_have_their_origins(self) -> "Sources":
        if self.credential and (len({*self.allow}) != 1 or self.credentials):
            raise ValueError(
                "credential is for one allowed origin alone; write `credentials: {ORIGIN: SECRET}`"
            )
        for origin in self.secrets:
            if origin not in self.allow:
                raise ValueError(f"credentials name {origin}, which is not in allow; add it there")
            if not keeps_secrets(origin):
                raise ValueError(f"everybody on the way to {origin} would read its credential; use https")
        return self


class TrustPolicy(SignedWord):
    """The content of trust.yaml. The first rule that fits decides; without one, nothing is admitted."""

    version: Literal[1]
    trust_roots: dict[str, TrustRoot] = {}
    openpgp: dict[str, PinnedCertificate] = {}
    cms: dict[str, EnterpriseAuthority] = {}
    revoked: Revoked = Revoked()
    rules: tuple[Rule, ...] = Field(min_length=1)
    approvals: ApprovalRules = ApprovalRules()
    sources: Sources = Sources()

    @model_validator(mode="after")
    def _names_exist(self) -> "TrustPolicy":
        known = {"sigstore": {*self.trust_roots}, "openpgp": {*self.openpgp}, "cms": {*self.cms}}
        for rule in self.rules:
            for signer in chain.from_iterable(rule.groups.values()):
                for kind, names in known.items():
                    name = getattr(signer, kind)
                    if name is not None and name not in names:
                        scope = f"rule {rule.product}/{rule.channel}"
                        raise ValueError(f"{scope}: no {kind} root is named {name}")
        return self


class Envelope(Value):
    """A signature as it travels beside a statement; `token` is a time stamp for CMS signatures."""

    kind: SignatureKind
    content: bytes
    token: bytes | None = None


class VerifiedSignature(Value):
    """A signature that holds, with what it proves and the evidence an auditor wants."""

    kind: SignatureKind
    root: str = Field(description="name of the trust root, pinned certificate or authority in the policy")
    issuer: str = ""
    identity: str
    payload_digest: Digest
    signed_at: AwareDatetime | None = None
    serial: str = Field(default="", description="certificate serial number in hex")
    spki_sha256: str = ""
    evidence: dict[str, str] = {}

    @property
    def label(self) -> str:
        """The signer as people read it."""
        return f"{self.identity} ({self.issuer})" if self.issuer else self.identity


class Change(Value):
    """What a release changes beside its programs: configuration keys, and which lead to credentials."""

    manifest: Digest
    before: Digest | None = Field(description="digest of the template in use, None on a first installation")
    after: Digest
    keys: tuple[str, ...]
    credentials: tuple[str, ...] = ()
