"""Read signed statements: in-toto Statement v1 around a release manifest or a channel index.

Format: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. The signature
library hands over whatever was signed, of any type and about anything, so type, predicate
and subject are compared here.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from policies.model.refusals import (
    DigestMismatch,
    ManifestInvalid,
    SubjectMismatch,
    WeakAlgorithm,
    WrongStatementType,
)
from policies.model.release import (
    INDEX_PREDICATE,
    RELEASE_PREDICATE,
    STATEMENT_TYPE,
    ChannelIndex,
    ReleaseManifest,
    Sha256,
    SignedWord,
)
from policies.model.value import Digest, digest_of
from policies.trust import strict_json

T = TypeVar("T", bound=SignedWord)


class Subject(SignedWord):
    """A thing a statement speaks about, by name and the one digest that counts."""

    name: str
    digest: dict[str, str]


WEAK = {"md5", "sha1"}
_FIELDS = {"_type", "subject", "predicateType", "predicate"}

_SUBJECTS: TypeAdapter[tuple[Subject, ...]] = TypeAdapter(tuple[Subject, ...])
_SHA256: TypeAdapter[str] = TypeAdapter(Sha256)


def parse_release(payload: bytes) -> ReleaseManifest:
    """Return the manifest these bytes state, its subjects being exactly its artifacts and its image.

    Raises:
        ManifestInvalid: not strictly a statement about a release.
        WrongStatementType: a statement of another kind.
        SubjectMismatch: subjects and artifacts differ.
    """
    predicate, subjects = _open(payload, RELEASE_PREDICATE)
    manifest = _model(ReleaseManifest, predicate)
    if subjects != manifest.subjects:
        odd = min(set(subjects.items()) ^ set(manifest.subjects.items()))[0]
        raise SubjectMismatch(f"the statement's subjects and the manifest's artifacts disagree about {odd!r}")
    return manifest


def parse_index(payload: bytes) -> ChannelIndex:
    """Return the channel index these bytes state, its subjects being the manifests it lists.

    Raises as `parse_release` does.
    """
    predicate, subjects = _open(payload, INDEX_PREDICATE)
    index = _model(ChannelIndex, predicate)
    if sorted(subjects.values()) != sorted(current.manifest_sha256 for current in index.current):
        raise SubjectMismatch("the index's subjects and the manifests it lists disagree")
    return index


def kind_of(payload: bytes) -> str:
    """Return which kind of statement these bytes are, by its predicate type; empty if they are none.

    Raises:
        ManifestInvalid: they are not strictly JSON.
    """
    statement = strict_json.loads(payload)
    return str(statement.get("predicateType", "")) if isinstance(statement, dict) else ""


def require_digest(content: bytes, expected: Digest, what: str) -> None:
    """Refuse bytes that are not the named ones.

    Raises:
        DigestMismatch: the bytes have another digest.
    """
    found = digest_of(content)
    if found != expected:
        raise DigestMismatch(f"{what} has digest {found}, expected {expected}; fetch it again")


def _open(payload: bytes, predicate_type: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return predicate and subjects of a statement of this kind."""
    statement = strict_json.loads(payload)
    if not isinstance(statement, dict) or set(statement) != _FIELDS:
        raise ManifestInvalid("the document is no in-toto statement with exactly its fields", reason="shape")
    if statement["_type"] != STATEMENT_TYPE or statement["predicateType"] != predicate_type:
        raise WrongStatementType(f"the statement is of type {str(statement['predicateType'])[:80]!r}")
    if not isinstance(statement["predicate"], dict):
        raise ManifestInvalid("the statement's predicate is not an object", reason="shape")
    return statement["predicate"], _subjects(statement["subject"])


def _subjects(raw: Any) -> dict[str, str]:
    try:
        subjects = _SUBJECTS.validate_python(tuple(raw) if isinstance(raw, list) else raw)
        for subject in subjects:
            name = subject.name[:80]
            if subject.digest.keys() <= WEAK:
                raise WeakAlgorithm(f"subject {name!r} is named by a digest that can be forged")
            if set(subject.digest) != {"sha256"}:
                raise ManifestInvalid(f"subject {name!r} is not named by sha256 alone", reason="algorithm")
            _SHA256.validate_python(subject.digest["sha256"])
    except ValidationError as error:
        wrong = f"the statement's subjects are invalid: {_first(error)}"
        raise ManifestInvalid(wrong, reason="subject") from error
    found = {subject.name: subject.digest["sha256"] for subject in subjects}
    if len(found) != len(subjects):
        raise ManifestInvalid("the statement names a subject twice", reason="subject")
    return found


def _model(model: type[T], predicate: dict[str, Any]) -> T:
    """Return the predicate as a model; JSON in, since only then do strict models read dates and tuples."""
    try:
        return model.model_validate_json(strict_json.dumps(predicate))
    except ValidationError as error:
        raise ManifestInvalid(f"the document is invalid: {_first(error)}", reason="field") from error


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
