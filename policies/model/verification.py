"""A verification: what was judged about a release, the verdict, and everything it can be recomputed from."""

from pydantic import AwareDatetime, Field

from policies.model.host import Host
from policies.model.trust import SignatureKind, VerifiedSignature
from policies.model.value import Digest, Name, Value


class Scope(Value):
    """For which fleet a release is asked about."""

    product: Name
    channel: Name


class StoredSignature(Value):
    """One signature, as it lies in the evidence store."""

    kind: SignatureKind
    content: Digest
    token: Digest | None = None


class Signed(Value):
    """A statement and its signatures, as they lie in the evidence store."""

    statement: Digest
    signatures: tuple[StoredSignature, ...]
    admitted_at: AwareDatetime | None = Field(
        default=None,
        description="when these signatures admitted a release here, by which they are judged again",
    )


class TrustState(Value):
    """What one fleet has already seen of a product and channel; floor, serial and time only grow."""

    floor: int = 0
    promoted: tuple[Digest, ...] = ()
    index_serial: int = 0
    seen_at: AwareDatetime | None = Field(default=None, description="latest time known to have passed")
    admitted: dict[Digest, Signed] = {}
    revoked: tuple[Digest, ...] = Field(default=(), description="withdrawn by some index, for good")
    security_floor: int = 0
    index: Signed | None = Field(default=None, description="the channel's newest index, for starts")
    files: dict[str, Digest] = Field(
        default={},
        description="the trust policy that admitted something last, and its files, for the way back",
    )


class TrustVerdict(Value):
    """Whether a release is admitted, and in a sentence why; `code` is `Admitted` or the refusal's name."""

    admitted: bool
    code: str
    reason: str = Field(min_length=1)
    detail: str = ""
    signers: tuple[str, ...] = ()


class Verification(Value):
    """One verdict with everything it rests on: the line that goes into the audit record."""

    at: AwareDatetime
    scope: Scope
    release: Digest
    source: str
    verdict: TrustVerdict
    signatures: tuple[VerifiedSignature, ...] = ()
    version: str = ""
    rollback_index: int | None = None
    artifacts: dict[str, Digest] = {}
    state: TrustState
    policy: Digest
    files: dict[str, Digest] = {}
    manifest: Signed | None = None
    index: Signed | None = None
    host: Host | None = Field(default=None, description="where it was to run; None where no host asked")
    accesses: tuple[str, ...] = ()
    """One line for every answer of the source: its status, its bytes, its seconds, its address."""

    @property
    def fetched(self) -> str:
        """What was fetched from where and what came of it, in a sentence; the same for the same fetch."""
        size = sum(int(line.split()[1]) for line in self.accesses)
        answers = "1 answer" if len(self.accesses) == 1 else f"{len(self.accesses)} answers"
        release = f"{self.version} {self.release}".strip()
        return f"{release} from {self.source}: {answers} of {size} bytes, {self.verdict.code}"
