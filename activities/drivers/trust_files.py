"""Compose everything releases need from a store folder and a trust.yaml with the files beside it."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from activities.drivers.credentials import Credentials
from activities.drivers.lines import append
from activities.drivers.rights import read_own
from activities.drivers.source.http import HttpSource
from activities.drivers.source.oci import OciSource
from activities.drivers.source.transport import Transport, shown
from activities.drivers.source.wire import Deadline
from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.layers import require_beside
from activities.drivers.store.states import TrustStates
from activities.drivers.store.trees import furnish, inspect, unpack
from activities.evidence import reverify
from activities.files import parse
from activities.refusals import PolicyInvalid
from activities.releases import Releases, ReleaseSource, Tools
from activities.verdicts import LoadedTrust, SignatureVerifier
from policies.model.errors import BadInput
from policies.model.origin import origin_of
from policies.model.refusals import DigestMismatch
from policies.model.trust import SignatureKind, TrustPolicy
from policies.model.value import Digest, digest_of
from policies.model.verification import Scope, Verification
from policies.trust import strict_json

POLICY = "trust.yaml"
LARGEST = 1 << 20
"""Bytes of a trust policy: one of a hundred rules takes a tenth of it."""
TRANSFER = (
    *("DigestMismatch", "DownloadFailed", "SizeExceeded", "TransportRefused", "ArchiveRefused"),
    *("PolicyChanged", "BadInput", "Unavailable"),
)
"""Verdicts about how something arrived or was agreed on, which documents alone do not tell."""


def compose_releases(
    store: Path,
    trust: Path,
    *,
    product: str | None = None,
    channel: str | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    record: Callable[[Verification], None] | None = None,
    promoted: Callable[[], Collection[Digest]] = tuple,
    fetched: Callable[[Verification], None] | None = None,
) -> Releases:
    """Return releases over a folder and a trust policy file.

    A host of one fleet names its product and channel; the orchestrator names them with each release.
    `record` takes every verdict; without one they go to `audit.jsonl` in the folder. `promoted`
    says which releases are known-good somewhere: they raise the floor, and stay admissible.
    `fetched` hears of every verdict for which something was fetched, too.
    """
    written = record or Trail(store / "audit.jsonl").append

    def told(verification: Verification) -> None:
        written(verification)
        if fetched is not None and verification.accesses:
            fetched(verification)

    blobs = BlobStore(store)
    tools = Tools(
        store=blobs,
        evidence=BlobStore(store / "evidence"),
        states=TrustStates(store / "states"),
        trust=lambda: load_trust(trust),
        policy_in=lambda raw: parse_policy(raw, f"a kept {POLICY}"),
        trust_of=lambda files: assemble(parse_policy(files[POLICY], f"a kept {POLICY}"), files),
        source=lambda name, loaded: open_source(name, loaded, blobs, Credentials(os.environ)),
        unpack=unpack,
        inspect=inspect,
        furnish=furnish,
        beside=require_beside,
        record=told,
        clock=clock,
        promoted=promoted,
    )
    scope = Scope(product=product, channel=channel) if product and channel else None
    return Releases(scope, tools)


def open_source(name: str, trust: LoadedTrust, store: BlobStore, credentials: Credentials) -> ReleaseSource:
    """Return the source of that name; a credential is resolved by the first request that shows it.

    `http://` and `https://` are repositories of files; `oci://host/name` is a repository of a
    registry, `oci+http://host:port/name` one without TLS.

    Raises:
        BadInput: the name is none of these.
    """
    sources = trust.policy.sources
    authorities = trust.files[sources.authorities].decode() if sources.authorities else None
    transport = Transport(sources.allow, deadline_seconds=sources.deadline_s, authorities=authorities)

    def secret(reference: str, deadline: Deadline) -> str:
        return credentials.resolve(reference, deadline).get_secret_value()

    def bearer(reference: str, deadline: Deadline) -> str:
        return f"Bearer {secret(reference, deadline)}"

    def login(reference: str, deadline: Deadline) -> str:
        return f"Basic {base64.b64encode(secret(reference, deadline).encode()).decode()}"

    most_bytes = sources.max_blob_mib << 20
    scheme, _, rest = name.partition("://")
    if scheme in ("http", "https"):
        if reference := sources.secrets.get(origin_of(name)):
            transport.authorize(name, partial(bearer, reference))
        return HttpSource(name, transport, store, most_bytes=most_bytes)
    host, _, repository = rest.partition("/")
    if scheme not in ("oci", "oci+http") or not repository:
        raise BadInput(f"a release source is http(s)://… or oci://host/name, not {shown(name)}")
    base = f"{'https' if scheme == 'oci' else 'http'}://{host}"
    logins = {origin: partial(login, reference) for origin, reference in sources.secrets.items()}
    return OciSource(base, repository, transport, store, most_bytes=most_bytes, logins=logins)


def load_trust(path: Path) -> LoadedTrust:
    """Return the trust policy in this file, with verifiers over the files it names.

    Raises:
        PolicyInvalid: the file, or one it names, is missing, malformed or not the pinned one.
    """
    try:
        raw = _own(path)
    except OSError as error:
        raise PolicyInvalid(
            f"the trust policy {path} cannot be read ({error.strerror}); write it, or say where it is: "
            "PENSTOCK_TRUST, on a gateway's host `trust` of the agent's file"
        ) from error
    policy = parse_policy(raw, str(path))
    return assemble(policy, {POLICY: raw, **_named_files(policy, path)})


def check_trust(path: Path) -> LoadedTrust:
    """Return the trust policy in this file, if each key that it pins can sign.

    One that cannot keeps nothing else of the file from its use: others still sign, and hosts go back.

    Raises:
        PolicyInvalid: a key cannot, or the file is not as it must be.
    """
    trust = load_trust(path)
    if faults := [one.fault for one in trust.pinned if one.fault]:
        raise PolicyInvalid(f"{path}: {'; '.join(faults)}")
    return trust


def parse_policy(raw: bytes, where: str) -> TrustPolicy:
    """Return the policy these YAML bytes hold.

    Raises:
        PolicyInvalid: not YAML, or not a trust policy.
    """
    if len(raw) > LARGEST:
        raise PolicyInvalid(f"{where} is larger than {LARGEST} bytes; check that it is the file you mean")
    try:
        return parse(raw.decode(), where, TrustPolicy)
    except UnicodeDecodeError as error:
        raise PolicyInvalid(f"{where} is not UTF-8 text; save the file as UTF-8") from error
    except BadInput as error:
        raise PolicyInvalid(str(error)) from error


def assemble(policy: TrustPolicy, files: Mapping[str, bytes]) -> LoadedTrust:
    """Return verifiers over a policy and the content of its files.

    Only the libraries of the kinds that the policy names are loaded: each takes megabytes, of every agent.

    Raises:
        PolicyInvalid: a file is not the pinned one.
    """
    roots = {}
    for name, root in policy.trust_roots.items():
        content = files[root.trusted_root]
        if hashlib.sha256(content).hexdigest() != root.sha256:
            raise PolicyInvalid(f"{root.trusted_root} is not the file whose sha256 the trust policy names")
        roots[name] = content
    verifiers: dict[SignatureKind, SignatureVerifier] = {}
    if roots:
        from activities.drivers.signature.sigstore import SigstoreVerifier  # noqa: PLC0415

        verifiers[SignatureKind.SIGSTORE] = SigstoreVerifier(roots)
    known = frozenset[str]()
    if policy.openpgp:
        from activities.drivers.signature.openpgp import OpenPgpVerifier  # noqa: PLC0415

        pinned = {name: (files[entry.cert], entry.fingerprint) for name, entry in policy.openpgp.items()}
        verifiers[SignatureKind.OPENPGP] = openpgp = OpenPgpVerifier(pinned)
        known = openpgp.keys()
    if unknown := [one for one in policy.revoked.openpgp if one.upper() not in known]:
        raise PolicyInvalid(
            f"revoked.openpgp has {unknown[0]}, which is no key of a pinned certificate, so it would revoke "
            "nothing; correct it, or remove it if its certificate is no longer pinned"
        )
    if policy.cms:
        from activities.drivers.signature.cms import CmsVerifier  # noqa: PLC0415

        authorities = {
            name: (files[entry.roots], files[entry.tsa] if entry.tsa else None)
            for name, entry in policy.cms.items()
        }
        verifiers[SignatureKind.CMS] = CmsVerifier(authorities)
    return LoadedTrust(policy, digest_of(files[POLICY]), verifiers, dict(files))


def _named_files(policy: TrustPolicy, path: Path) -> dict[str, bytes]:
    names = [root.trusted_root for root in policy.trust_roots.values()]
    names += [policy.sources.authorities] if policy.sources.authorities else []
    names += [pinned.cert for pinned in policy.openpgp.values()]
    names += [name for authority in policy.cms.values() for name in (authority.roots, authority.tsa) if name]
    try:
        return {name: _own(path.parent / name) for name in names}
    except OSError as error:
        raise PolicyInvalid(
            f"{path} names {error.filename}, which cannot be read ({error.strerror}); put it there"
        ) from error


def _own(path: Path) -> bytes:
    try:
        return read_own(path, most=LARGEST)
    except BadInput as error:
        raise PolicyInvalid(str(error)) from error


class Trail:
    """An append-only file of verdicts, each line bound to the one before by its digest."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, verification: Verification) -> None:
        """Add one line and have it on disk."""
        said = verification.model_dump(mode="json")
        append(self._path, lambda last: strict_json.dumps({"before": digest_of(last), "verification": said}))

    def read(self) -> tuple[Verification, ...]:
        """Return every verdict, the oldest first.

        Raises:
            DigestMismatch: a line was altered, removed or put in.
        """
        found, before = [], digest_of(b"")
        for number, line in enumerate(self._path.read_bytes().splitlines(keepends=True), start=1):
            try:
                entry = json.loads(line)
                if entry["before"] != before or not line.endswith(b"\n"):
                    raise DigestMismatch(f"line {number} of {self._path} does not follow the one before it")
                found.append(Verification.model_validate_json(json.dumps(entry["verification"])))
            except (ValueError, KeyError, TypeError) as error:
                raise DigestMismatch(f"line {number} of {self._path} was altered: {error}") from error
            before = digest_of(line)
        return tuple(found)


def evidence_of(store: Path) -> BlobStore:
    """Return the evidence that verdicts of this store rest on."""
    return BlobStore(store / "evidence")


def recompute(verification: Verification, evidence: BlobStore) -> str | None:
    """Return the verdict's code as the stored evidence gives it today, None if it was about the transfer.

    Raises:
        DigestMismatch: some of the evidence is gone or was changed.
    """
    if verification.manifest is None or verification.verdict.code in TRANSFER:
        return None
    files = {name: evidence.read(digest) for name, digest in verification.files.items()}
    trust = assemble(parse_policy(files[POLICY], POLICY), files)
    return reverify(verification, evidence, trust).code
