"""Releases in an OCI registry: statements and artifacts are blobs, signatures are referrers.

    tag statement-<hex>               an image manifest whose layers hold the statement and its artifacts
    tag channel-<product>-<channel>   the same for the channel's index
    referrers of that manifest        one manifest for each signature, of the signature's type
    by its own digest                 the image that the statement names, with the same referrers

A tag or a listing is only a hint where to look: what counts is the digest that was asked for.
Specification: https://github.com/opencontainers/distribution-spec/blob/main/spec.md (the
fallback tag `sha256-<hex>` is for registries without the referrers API, such as Debian's).
"""

import contextlib
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from activities.drivers.source.challenges import challenges_in, token_in
from activities.drivers.source.download import download
from activities.drivers.source.transport import Authorization, Challenged, NotThere, Transport, shown
from activities.drivers.store.blobs import BlobStore
from activities.refusals import TransportRefused
from policies.model.origin import origin_of
from policies.model.refusals import DigestMismatch, ManifestInvalid
from policies.model.release import PAYLOAD_TYPE
from policies.model.trust import Envelope, SignatureKind
from policies.model.value import Digest, digest_of
from policies.trust import strict_json
from policies.trust.images import IMAGE_INDEX, IMAGE_MANIFEST
from policies.trust.statements import require_digest

TOKEN_TYPE = "application/vnd.penstock.timestamp.rfc3161"  # noqa: S105 - a media type
SIGNATURE_TYPES = {
    "application/vnd.dev.sigstore.bundle.v0.3+json": SignatureKind.SIGSTORE,
    "application/vnd.penstock.signature.openpgp": SignatureKind.OPENPGP,
    "application/vnd.penstock.signature.cms": SignatureKind.CMS,
}

MAX_MANIFEST_BYTES = 4 << 20
MAX_SMALL_BYTES = 4 * strict_json.MAX_BYTES
MOST_SIGNATURES = 16
MOST_PAGES = 16
"""Pages of one listing that are read."""
TAKE_AWAY = (
    "Delete the manifests that refer to it without need in the registry, and check who else may push there"
)
WITHOUT_LISTING = {"status", "denied"}
"""Reasons of refused questions that registries without the referrers API, or without the tag, give."""
LINK = re.compile(r"<([^<>]*)>([^<]*)")
NEXT = re.compile(r';\s*rel\s*=\s*"?next"?\s*(?:[;,]|$)', re.IGNORECASE)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Descriptor:
    """A thing of the registry, by digest."""

    digest: Digest
    media_type: str


class OciSource:
    """One repository of a registry; `base` is the registry's URL, `name` the repository in it."""

    def __init__(
        self,
        base: str,
        name: str,
        transport: Transport,
        store: BlobStore,
        *,
        most_bytes: int,
        logins: Mapping[str, Authorization] | None = None,
    ) -> None:
        """Read from that repository; `logins` are values like `Basic …` by the origin each is for."""
        self._url = f"{base.rstrip('/')}/v2/{name}"
        self._transport = transport
        self._store = store
        self._most_bytes = most_bytes
        self._logins = dict(logins or {})

    @property
    def accesses(self) -> tuple[str, ...]:
        """One line for every request made so far."""
        return tuple(self._transport.accesses)

    async def index(self, product: str, channel: str) -> tuple[bytes, tuple[Envelope, ...]]:
        """Return the channel's index statement and its signatures; nothing is checked yet."""
        content, _ = await self._manifest(f"channel-{product}-{channel}")
        for layer in _descriptors(content, "layers"):
            if layer.media_type == PAYLOAD_TYPE:
                return await self._small(layer.digest), await self._referrers(digest_of(content))
        raise ManifestInvalid(f"the tag channel-{product}-{channel} leads to no statement", reason="pointer")

    async def manifest(self, digest: Digest) -> bytes:
        """Return the statement of that digest.

        Raises:
            DigestMismatch: the registry has other bytes under that digest.
        """
        return await self._small(digest)

    async def signatures(self, digest: Digest) -> tuple[Envelope, ...]:
        """Return the signatures of a statement; none if the registry knows none."""
        try:
            content, _ = await self._manifest(f"statement-{digest.removeprefix('sha256:')}")
        except NotThere:
            return ()
        return await self._referrers(digest_of(content))

    async def blob(self, digest: Digest, size: int) -> None:
        """Have the blob in the store."""
        if size > self._most_bytes:
            raise TransportRefused(f"blob {digest} has {size} bytes, allowed are {self._most_bytes}")
        url = f"{self._url}/blobs/{digest}"
        await self._authorized(download, self._transport, url, digest, size, self._store)

    async def image(self, digest: Digest) -> bytes:
        """Return the manifest of the image of that digest.

        Raises:
            DigestMismatch: the registry has other bytes under that digest.
        """
        content, _ = await self._manifest(digest)
        require_digest(content, digest, "the image")
        return content

    async def _referrers(self, subject: Digest) -> tuple[Envelope, ...]:
        """Return the signatures that refer to a manifest: by the API, or else by the fallback tag.

        Registries without the API answer its address with 400, 403, 404, 405, 501, or with 200 and something
        else; some give the image itself for the tag. What is listed is only a hint where to look.
        """
        found = await self._listed(self._pages(f"{self._url}/referrers/{subject}"))
        if not found:
            found = await self._listed(self._tagged(subject.replace(":", "-")))
        if len(found) > MOST_SIGNATURES:
            too_many = f"{len(found)} signatures refer to {subject}; at most {MOST_SIGNATURES} are verified"
            raise ManifestInvalid(f"{too_many}. {TAKE_AWAY}", reason="listing")
        envelopes = list[Envelope]()
        for descriptor in found:
            with contextlib.suppress(NotThere):  # a signature that was deleted may be listed for a while
                envelopes += await self._envelope(descriptor)
        return tuple(envelopes)

    async def _tagged(self, tag: str) -> list[Any]:
        content, _ = await self._manifest(tag)
        return _entries(content, "manifests")

    async def _pages(self, url: str) -> list[Any]:
        """Return the entries of a listing, which a registry may give page by page."""
        entries: list[Any] = []
        page: str | None = url
        for _ in range(MOST_PAGES):
            content, headers = await self._authorized(
                self._transport.read,
                page,
                most=MAX_MANIFEST_BYTES,
                deadline=self._transport.deadline(),
                accept=IMAGE_INDEX,
            )
            entries += _entries(content, "manifests")
            page = _next_page(str(page), headers)
            if page is None:
                return entries
        sentence = f"{shown(url)} has more than {MOST_PAGES} pages. {TAKE_AWAY}"
        raise TransportRefused(sentence, reason="listing")

    async def _listed(self, answer: Awaitable[list[Any]]) -> list[Descriptor]:
        """Return the entries of an index that may be signatures; none where the answer is no index.

        Some registries list a signature's manifest by its own type, without that of its artifact.
        """
        try:
            listed = await answer
        except (NotThere, ManifestInvalid):
            return []
        except TransportRefused as refused:
            if refused.reason not in WITHOUT_LISTING:
                raise
            return []
        found = [one for one in dict.fromkeys(map(_descriptor, listed)) if one is not None]
        declared = [one for one in found if one.media_type in SIGNATURE_TYPES]
        return declared or [one for one in found if one.media_type == IMAGE_MANIFEST]

    async def _envelope(self, descriptor: Descriptor) -> tuple[Envelope, ...]:
        """Return the signature that a listed manifest holds; none where it holds something else."""
        content, _ = await self._manifest(descriptor.digest)
        require_digest(content, descriptor.digest, "a signature's manifest")
        try:
            layers = _descriptors(content, "layers")
        except ManifestInvalid:
            return ()
        signatures = [layer for layer in layers if layer.media_type in SIGNATURE_TYPES]
        tokens = [layer for layer in layers if layer.media_type == TOKEN_TYPE]
        if descriptor.media_type in SIGNATURE_TYPES:
            signatures = [layer for layer in signatures if layer.media_type == descriptor.media_type]
        if len(signatures) != 1 or len(tokens) > 1:
            return ()
        envelope = Envelope(
            kind=SIGNATURE_TYPES[signatures[0].media_type],
            content=await self._small(signatures[0].digest),
            token=await self._small(tokens[0].digest) if tokens else None,
        )
        return (envelope,)

    async def _manifest(self, reference: str) -> tuple[bytes, httpx.Headers]:
        """Return a manifest by tag or digest; the registry's own claim about its digest must be true."""
        url = f"{self._url}/manifests/{reference}"
        content, headers = await self._authorized(
            self._transport.read,
            url,
            most=MAX_MANIFEST_BYTES,
            deadline=self._transport.deadline(),
            accept=f"{IMAGE_MANIFEST}, {IMAGE_INDEX}",
        )
        claimed = headers.get("docker-content-digest")
        if claimed is not None and claimed != digest_of(content):
            raise DigestMismatch(f"{shown(url)} claims digest {claimed[:80]} for other bytes")
        return content, headers

    async def _small(self, digest: Digest) -> bytes:
        content = await self._read(f"blobs/{digest}", MAX_SMALL_BYTES, "*/*")
        require_digest(content, digest, "a blob")
        return content

    async def _read(self, path: str, most: int, accept: str) -> bytes:
        url, deadline = f"{self._url}/{path}", self._transport.deadline()
        content: bytes = await self._authorized(
            self._transport.get, url, most=most, deadline=deadline, accept=accept
        )
        return content

    async def _authorized(self, step: Any, *arguments: Any, **named: Any) -> Any:
        """Do the step; if the registry asks for a token, get one and do it again."""
        try:
            return await self._transport.beside(step, *arguments, **named)
        except Challenged as challenged:
            await self._transport.beside(self._log_in, challenged.challenge)
        return await self._transport.beside(step, *arguments, **named)

    def _log_in(self, challenge: str) -> None:
        """Answer a challenge: https://distribution.github.io/distribution/spec/auth/token/.

        The token service is asked only if its origin is allowed, and gets a login only if that is its own.
        """
        offered = challenges_in(challenge)
        login = self._logins.get(origin_of(self._url))
        if offered.takes_password and login:
            self._transport.authorize(self._url, login)
            return
        if not offered.realm:
            raise TransportRefused(f"{shown(self._url)} asks for credentials nobody has", reason="denied")
        address = offered.token_address()
        self._transport.require_allowed(address)
        if login := self._logins.get(origin_of(address)):
            self._transport.authorize(address, login)
        answer = self._transport.get(address, most=65_536, deadline=self._transport.deadline())
        self._transport.authorize(self._url, f"Bearer {token_in(answer)}")


def _next_page(url: str, headers: httpx.Headers) -> str | None:
    """Return where the listing goes on: https://www.rfc-editor.org/rfc/rfc5988#section-5; None at its end."""
    for target, parameters in LINK.findall(headers.get("link", "")):
        if NEXT.search(parameters):
            try:
                return str(httpx.URL(url).join(target))
            except httpx.InvalidURL as error:
                raise TransportRefused(f"{shown(url)} goes on at no address", reason="listing") from error
    return None


def _entries(content: bytes, field: str) -> list[Any]:
    document = strict_json.loads(content, max_bytes=MAX_MANIFEST_BYTES, fractions=True)
    listed = document.get(field) if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ManifestInvalid(f"a document of the registry lists no {field}", reason="listing")
    return listed


def _descriptors(content: bytes, field: str) -> list[Descriptor]:
    """Return what a manifest lists, by digest."""
    found = [_descriptor(entry) for entry in _entries(content, field)]
    if None in found:
        raise ManifestInvalid("the registry lists something without a sha256 digest", reason="algorithm")
    return [one for one in found if one is not None]


def _descriptor(entry: Any) -> Descriptor | None:
    """Return where an entry leads; of a signature the artifact type counts. None without a sha256 digest."""
    digest = entry.get("digest") if isinstance(entry, dict) else None
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return None
    return Descriptor(digest, str(entry.get("artifactType") or entry.get("mediaType")))
