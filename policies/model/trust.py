"""The trust policy: who may sign what, how many of them it takes, and where releases may come from."""

from datetime import datetime
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


CALLER = "caller"
"""Reason of a refusal: a repository that the trust policy does not name called a signer's workflow."""

LAPSED = "lapsed"
"""Why a signature that holds proves nothing at some time: its key or certificate had ended by then."""


class TrustRoot(SignedWord):
    """A Sigstore instance: its trusted root file, pinned by digest."""

    trusted_root: str
    """The file, beside trust.yaml."""
    sha256: Sha256
    """What `sha256sum` says of it."""


class PinnedCertificate(SignedWord):
    """An OpenPGP certificate file and the fingerprint it must have."""

    cert: str
    """The public key's file, beside trust.yaml; `gpg --armor --export`."""
    fingerprint: str = Field(pattern=r"^[0-9A-F]{40}$|^[0-9A-F]{64}$")
    """What `gpg --fingerprint` prints, without spaces."""


class EnterpriseAuthority(SignedWord):
    """An enterprise CA: its root certificates and those of its time stamps, as PEM files."""

    roots: str
    """Its root certificates in PEM, beside trust.yaml."""
    tsa: str | None = None
    """Who stamps the time, in PEM; unstamped signatures admit nothing new once their certificate ended."""


class Signer(SignedWord):
    """Somebody who may sign: exactly one of a Sigstore identity, an OpenPGP key or a CA's subject.

    Two signers with the same `person` count once; without one, two with the same identity do.
    """

    sigstore: str | None = None
    """Name of an entry of `trust_roots`."""
    issuer: str | None = None
    """Who said who it is, of Sigstore signers: the identity provider's URL."""
    identity: str | None = None
    """The mail address or URI in the certificate, of Sigstore and CA signers."""
    identity_prefix: str | None = None
    """Instead of it, for a workflow that signs tags: ends with `@refs/tags/`."""
    source_repository: Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S*[^\s/]$")] | None = None
    """The repository whose run signs, compared exactly; required where it calls another one's workflow."""
    openpgp: str | None = None
    """Name of an entry of `openpgp`."""
    cms: str | None = None
    """Name of an entry of `cms`."""
    person: Annotated[str, Field(pattern=r"\S")] | None = None
    """Who holds the key; needed where two or more sign and one may have keys of two kinds."""

    @property
    def kind(self) -> SignatureKind:
        """How this signer signs."""
        found = next(kind for kind in SignatureKind if getattr(self, kind) is not None)
        return SignatureKind(found)

    @property
    def shown(self) -> str:
        """The signer as the policy names it."""
        return self.identity or self.identity_prefix or f"the openpgp signer {self.openpgp}"

    def is_named(self, identity: str, issuer: str, source_repository: str = "") -> bool:
        """Return whether this identity is the signer's: exact names, no patterns but the one prefix form.

        Args:
            identity: The mail address or URI in the certificate.
            issuer: The identity provider that the certificate names, empty outside of Sigstore.
            source_repository: The repository whose run signed, empty where the certificate names none.
        """
        if self.issuer is not None and issuer != self.issuer:
            return False
        if not may_sign(identity, source_repository, self.source_repository):
            return False
        if self.identity_prefix is not None:
            return identity.startswith(self.identity_prefix)
        return identity == self.identity

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
        is_workflow = self.sigstore is not None and "://" in (self.identity or self.identity_prefix or "")
        if self.source_repository is not None and not is_workflow:
            raise ValueError("source_repository is for workflows that sign by Sigstore; remove it here")
        return self


def is_called_from_elsewhere(identity: str, source_repository: str) -> bool:
    """Return whether the identity is a workflow of another repository than the one whose run signed.

    Fulcio certifies a reusable workflow by the workflow's own address, whichever repository calls it. Such
    an address begins with that of the workflow's repository: `https://HOST/OWNER/REPOSITORY/PATH@REF`, at
    GitLab `https://HOST/GROUP/PROJECT//PATH@REF`.
    """
    is_workflow = "://" in identity and "@" in identity
    return is_workflow and source_repository != "" and not identity.startswith(f"{source_repository}/")


def may_sign(identity: str, source_repository: str, named: str | None) -> bool:
    """Return whether a run of that repository may sign as the identity.

    `named` is the only repository that may; without it, a workflow signs for its own repository alone.
    """
    if named is not None:
        return source_repository == named
    return not is_called_from_elsewhere(identity, source_repository)


class Requirement(SignedWord):
    """How many distinct people of a group must have signed."""

    group: str
    """Name of an entry of `groups`."""
    count: int = Field(default=1, ge=1)
    """How many different people of it."""


class Rule(SignedWord):
    """Who signs the releases of one product and channel."""

    product: Name
    """The product of the releases."""
    channel: Name
    """The channel of the releases."""
    groups: dict[str, tuple[Signer, ...]]
    """Who may sign, by the name of a group."""
    require: tuple[Requirement, ...] = Field(min_length=1)
    """How many of which groups must have signed; all of these."""
    index: Literal["required", "none"] = "required"
    """Whether a release has to be in its channel's signed index."""
    index_group: str | None = None
    """Name of the group that signs the index, where it is required."""
    max_age_days: int = Field(default=180, ge=1)
    """Days after which a manifest is too old to be admitted."""
    security_floor: int = Field(default=0, ge=0)
    """Rollback index below which nothing is admitted."""

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
    """Digests of releases."""
    cert_serials: tuple[RevokedSerial, ...] = ()
    """Serial numbers of certificates, in quotes."""
    spki_sha256: tuple[RevokedSha256, ...] = ()
    """Digests of public keys."""
    openpgp: tuple[RevokedFingerprint, ...] = ()
    """Fingerprints of keys of pinned OpenPGP certificates, subkeys included, in quotes."""
    identities: tuple[RevokedIdentity, ...] = ()
    """Mail addresses and URIs."""


class ApprovalRule(SignedWord):
    """How many people must approve a kind of change, for how long, and which configuration keys need none.

    Without `ttl_minutes` an approval is good for four hours.
    """

    count: int = Field(ge=0)
    """How many people, beside who starts it."""
    unless_keys_in: tuple[str, ...] = ()
    """Of `config`: settings whose change needs nobody."""
    ttl_minutes: int | None = Field(default=None, ge=1)
    """How long an approval is good; 240 where it is left out."""


class ApprovalRules(SignedWord):
    """Approvals by kind of change."""

    binary_only: ApprovalRule = ApprovalRule(count=0)
    """Programs change, no setting does."""
    config: ApprovalRule = ApprovalRule(count=2)
    """Settings change."""
    credentials: ApprovalRule = ApprovalRule(count=2)
    """Settings change that lead to secrets."""
    trust_policy_change: ApprovalRule = ApprovalRule(count=2)
    """The upgrade is under another trust.yaml than the last one."""


SecretReference = Annotated[str, Field(pattern=r"^(?:file|env|vault):")]
"""Where a secret is: `file:PATH`, `env:NAME` or `vault:PATH#FIELD`."""


class Sources(SignedWord):
    """Where releases may come from: origins such as `https://repo.corp.example:443`, and limits.

    `credentials` names for each origin that wants one a secret (`file:`, `env:` or `vault:`): a bearer token
    for HTTP, `user:password` for a registry. The first request to that origin reads it, and it is sent to
    that origin alone; a token service of another origin needs a line of its own. `credential` is short for
    that where `allow` has one origin only. By plain http no secret leaves this machine. `authorities` is a
    PEM file of certificates to trust for TLS instead of the system's. `deadline_s` is for all of a release
    together, Vault's answer included.
    """

    allow: tuple[Origin, ...] = ()
    """Where releases may come from: scheme, host and port."""
    max_blob_mib: int = Field(default=2048, ge=1)
    """Largest file, in MiB."""
    deadline_s: float = Field(default=900.0, gt=0)
    """Seconds that a release may take, all its files together."""
    credential: SecretReference | None = None
    """The secret of the only allowed origin."""
    credentials: dict[Origin, SecretReference] = {}
    """The secret of each origin that wants one."""
    authorities: str | None = None
    """PEM file beside trust.yaml, trusted for TLS instead of the system's."""

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
    """The form of this file."""
    trust_roots: dict[str, TrustRoot] = {}
    """Sigstore instances, by a name that signers refer to."""
    openpgp: dict[str, PinnedCertificate] = {}
    """OpenPGP keys, by a name that signers refer to."""
    cms: dict[str, EnterpriseAuthority] = {}
    """Enterprise CAs, by a name that signers refer to."""
    revoked: Revoked = Revoked()
    """What is no longer trusted, whoever signed it."""
    rules: tuple[Rule, ...]
    """Who signs what; the first one of product and channel decides, and with none nobody's releases count."""
    approvals: ApprovalRules = ApprovalRules()
    """How many people must approve which change."""
    sources: Sources = Sources()
    """Where releases may come from."""

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
    source_repository: str = Field(
        default="", description="repository whose run signed; empty where the certificate names none"
    )
    payload_digest: Digest
    signed_at: AwareDatetime | None = None
    serial: str = Field(default="", description="certificate serial number in hex")
    spki_sha256: str = ""
    signing_key: str = Field(default="", description="fingerprint of the OpenPGP key or subkey that signed")
    evidence: dict[str, str] = {}

    @property
    def label(self) -> str:
        """The signer as people read it, with the repository that called another one's workflow."""
        called = is_called_from_elsewhere(self.identity, self.source_repository)
        caller = f", called by {self.source_repository}" if called else ""
        return f"{self.identity} ({self.issuer}{caller})" if self.issuer else self.identity


class Pinned(Value):
    """A key or an authority that the trust policy pins for its signers, and when it ends."""

    kind: SignatureKind
    root: str = Field(description="its name in the policy")
    shown: str
    ends: AwareDatetime | None = Field(description="None where only a fault is known of it")
    vouches: bool = Field(default=True, description="whether no signature of its signers is good without it")
    fault: str = Field(default="", description="why none of its signatures counts, and what to do")

    def told(self, now: datetime) -> str:
        """Return its fault, or when it ends, as a clause of a sentence."""
        if self.fault or self.ends is None:
            return self.fault
        return f"{self.shown} {'ended' if self.ends <= now else 'ends'} at {self.ends:%Y-%m-%d %H:%M} UTC"

    def has_ended(self, now: datetime) -> bool:
        """Return whether it admits no new release any more."""
        return bool(self.fault) or (self.ends is not None and self.ends <= now)


class Change(Value):
    """What a release changes beside its programs: configuration keys, and which lead to credentials."""

    manifest: Digest
    before: Digest | None = Field(description="digest of the template in use, None on a first installation")
    after: Digest
    keys: tuple[str, ...]
    credentials: tuple[str, ...] = ()
