"""Releases in a plain folder of files behind any HTTP server, everything named by digest.

statements/sha256/<hex>         a release manifest or channel index, the exact signed bytes
signatures/sha256/<hex>.json    which signatures exist for that statement
blobs/sha256/<hex>              artifacts and signatures
channels/<product>/<channel>    the digest of the channel's index statement
"""

from pydantic import TypeAdapter, ValidationError

from activities.drivers.source.download import download
from activities.drivers.source.transport import NotThere, Transport
from activities.drivers.store.blobs import BlobStore
from activities.refusals import TransportRefused
from policies.model.refusals import ManifestInvalid
from policies.model.release import SignedWord
from policies.model.trust import Envelope, SignatureKind
from policies.model.value import Digest
from policies.trust import strict_json
from policies.trust.statements import require_digest

MAX_STATEMENT_BYTES = 4 * strict_json.MAX_BYTES
MAX_LISTING_BYTES = 65_536
MAX_SIGNATURE_BYTES = 262_144
MOST_SIGNATURES = 16


class SignatureEntry(SignedWord):
    """One signature of a statement, as the repository lists it; not trusted, only followed."""

    kind: str
    digest: Digest
    token: Digest | None = None


_ENTRIES: TypeAdapter[list[SignatureEntry]] = TypeAdapter(list[SignatureEntry])
_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)


class HttpSource:
    """A repository at a base URL."""

    def __init__(self, base: str, transport: Transport, store: BlobStore, *, most_bytes: int) -> None:
        self._base = base.rstrip("/")
        self._transport = transport
        self._store = store
        self._most_bytes = most_bytes

    @property
    def accesses(self) -> tuple[str, ...]:
        """One line for every request made so far."""
        return tuple(self._transport.accesses)

    async def index(self, product: str, channel: str) -> tuple[bytes, tuple[Envelope, ...]]:
        """Return the channel's index statement and its signatures; nothing is checked yet."""
        pointer = await self._get(f"channels/{product}/{channel}", 80)
        try:
            digest = _DIGEST.validate_python(pointer.decode("ascii", errors="replace").strip())
        except ValidationError as error:
            raise ManifestInvalid(
                f"channels/{product}/{channel} holds no digest", reason="pointer"
            ) from error
        return await self.manifest(digest), await self.signatures(digest)

    async def manifest(self, digest: Digest) -> bytes:
        """Return the statement of that digest.

        Raises:
            DigestMismatch: the repository has other bytes under that name.
        """
        content = await self._get(f"statements/{_place(digest)}", MAX_STATEMENT_BYTES)
        require_digest(content, digest, "the statement")
        return content

    async def signatures(self, digest: Digest) -> tuple[Envelope, ...]:
        """Return the signatures of a statement; none if the repository lists none."""
        try:
            listing = await self._get(f"signatures/{_place(digest)}.json", MAX_LISTING_BYTES)
        except NotThere:
            return ()
        try:
            entries = _ENTRIES.validate_python(strict_json.loads(listing))
        except ValidationError as error:
            raise ManifestInvalid("the list of signatures is malformed", reason="listing") from error
        entries = [*dict.fromkeys(entries)]
        if len(entries) > MOST_SIGNATURES:
            raise ManifestInvalid(
                f"{len(entries)} signatures lie beside {digest}; at most {MOST_SIGNATURES} are verified. "
                "Sign it again: `penstock release sign --replace`, and check who else writes to the folder",
                reason="listing",
            )
        return tuple([await self._envelope(entry) for entry in entries])

    async def blob(self, digest: Digest, size: int) -> None:
        """Have the blob in the store."""
        if size > self._most_bytes:
            raise TransportRefused(
                f"blob {digest} has {size} bytes; the trust policy allows {self._most_bytes}"
            )
        url = f"{self._base}/blobs/{_place(digest)}"
        await self._transport.beside(download, self._transport, url, digest, size, self._store)

    async def image(self, digest: Digest) -> bytes:
        """Return the manifest of the image of that digest; raises what `manifest` does."""
        content = await self._get(f"blobs/{_place(digest)}", MAX_STATEMENT_BYTES)
        require_digest(content, digest, "the image")
        return content

    async def _envelope(self, entry: SignatureEntry) -> Envelope:
        if entry.kind not in list(SignatureKind):
            raise ManifestInvalid(f"signatures of kind {entry.kind[:40]!r} are not known", reason="listing")
        token = await self._small(entry.token) if entry.token else None
        return Envelope(kind=SignatureKind(entry.kind), content=await self._small(entry.digest), token=token)

    async def _small(self, digest: Digest) -> bytes:
        content = await self._get(f"blobs/{_place(digest)}", MAX_SIGNATURE_BYTES)
        require_digest(content, digest, "a signature")
        return content

    async def _get(self, path: str, most: int) -> bytes:
        url = f"{self._base}/{path}"
        deadline = self._transport.deadline()
        return await self._transport.beside(self._transport.get, url, most=most, deadline=deadline)


def _place(digest: Digest) -> str:
    return digest.replace(":", "/")
