"""Ten thousand altered bundles, manifests, CMS and OpenPGP signatures: refused, or of the same meaning."""

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pysequoia
import pytest
from asn1crypto import cms as asn1_cms

from activities.drivers.trust_files import load_trust
from activities.verdicts import Document, LoadedTrust, Question, judge
from deploy.lab.signer import LabSigner
from orchestrator.publishing.signing import sign_cms, sign_openpgp
from policies.model.refusals import TrustError
from policies.model.trust import Envelope, SignatureKind
from policies.model.value import digest_of
from policies.model.verification import Scope, TrustState
from policies.trust.statements import parse_release
from tests.fakes.authority import EnterpriseCa
from tests.fakes.stage import CHANNEL, PRODUCT, Stage
from tests.sampled import sampled

SEED = 2026

Answer = tuple[str, tuple[str, ...], tuple[str, ...]]
Alter = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Good:
    """A release admitted by four signatures of three kinds."""

    payload: bytes
    envelopes: tuple[Envelope, ...]
    trust: LoadedTrust
    signers: tuple[str, ...]
    signer: LabSigner

    def verdict(self, payload: bytes, envelopes: tuple[Envelope, ...]) -> Answer:
        """Return verdict, signers, and the digests they signed; a foreign exception is the test's failure."""
        question = Question(
            digest_of(payload), Scope(product=PRODUCT, channel=CHANNEL), TrustState(), datetime.now(UTC)
        )
        found = judge(question, Document(payload, envelopes), None, self.trust)
        return found.verdict.code, found.verdict.signers, tuple(s.payload_digest for s in found.signatures)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Good]:
    with Stage(tmp_path_factory.mktemp("stage")) as stage:
        folder, payload = stage.folder / "lab", stage.built.statement
        authority = EnterpriseCa(folder / "corp")
        (folder / "tsa.pem").write_bytes((folder / "signer/root.pem").read_bytes())
        key = pysequoia.Tsk.generate("lead")
        certificate = key.extract_certificate()
        (folder / "lead.asc").write_bytes(bytes(certificate))
        (folder / "lead.key").write_bytes(bytes(key))

        def change(policy: dict[str, object]) -> None:
            policy["openpgp"] = {"lead": {"cert": "lead.asc", "fingerprint": certificate.fingerprint.upper()}}
            policy["cms"] = {"corp": {"roots": "corp/roots.pem", "tsa": "tsa.pem"}}
            lab = {"sigstore": "lab", "issuer": stage.lab.issuer}
            groups = {
                "builder": [lab | {"identity": stage.lab.builder[0], "person": "ana"}],
                "release_manager": [lab | {"identity": stage.lab.manager[0], "person": "bert"}],
                "pgp": [{"openpgp": "lead", "person": "carol"}],
                "corp": [{"cms": "corp", "identity": "lead@corp.example", "person": "dora"}],
            }
            require = [{"group": group} for group in groups]
            rule = {
                "product": PRODUCT,
                "channel": CHANNEL,
                "groups": groups,
                "require": require,
                "index": "none",
            }
            policy["rules"] = [rule]

        stage.change_policy(change)
        cms = sign_cms(payload, *authority.leaf("lead@corp.example"))
        signature = asn1_cms.ContentInfo.load(cms)["content"]["signer_infos"][0]["signature"].native
        envelopes = (
            *[Envelope(kind=SignatureKind.SIGSTORE, content=bundle) for bundle in stage.bundles()],
            Envelope(kind=SignatureKind.OPENPGP, content=sign_openpgp(payload, folder / "lead.key")),
            Envelope(kind=SignatureKind.CMS, content=cms, token=stage.signer.timestamp(signature)),
        )
        trust = load_trust(stage.lab.trust_policy)
        unsigned = Good(payload, envelopes, trust, (), stage.signer)
        code, signers, _ = unsigned.verdict(payload, envelopes)
        assert code == "Admitted"
        assert len(signers) == 4
        yield Good(payload, envelopes, trust, signers, stage.signer)


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Return the bytes altered in one of six ways."""
    place, length = dice.randrange(len(content)), dice.randrange(1, 9)
    match dice.randrange(6):
        case 0:
            return content[:place] + bytes([content[place] ^ (1 << dice.randrange(8))]) + content[place + 1 :]
        case 1:
            return content[:place] + content[place + length :]
        case 2:
            return content[:place] + dice.randbytes(length) + content[place:]
        case 3:
            return content[:place]
        case 4:
            return content[:place] + content[place : place + 40] + content[place:]
        case _:
            other = dice.randrange(len(content))
            return content[:place] + content[other : other + length] + content[place + length :]


def mutate_inside(content: bytes, dice: random.Random) -> bytes:
    """Return a bundle that is still JSON, with one base64 field or value altered."""
    bundle = json.loads(content)
    holders = [(holder, key) for holder, key in _leaves(bundle)]
    holder, key = dice.choice(holders)
    value = holder[key]  # type: ignore[index]
    try:
        decoded = base64.b64decode(value, validate=True)
        holder[key] = base64.b64encode(mutate(decoded, dice)).decode()  # type: ignore[index]
    except (ValueError, TypeError):
        holder[key] = mutate(str(value).encode(), dice).decode("latin-1")  # type: ignore[index]
    return json.dumps(bundle).encode()


def _leaves(value: object) -> Iterator[tuple[object, object]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        if isinstance(inner, dict | list):
            yield from _leaves(inner)
        elif inner:
            yield value, key


def altered_signature(number: int, change: Alter) -> Callable[[Good, random.Random], str]:
    def one(good: Good, dice: random.Random) -> str:
        envelope = good.envelopes[number]
        altered = envelope.model_copy(update={"content": change(envelope.content, dice)})
        envelopes = (altered, *good.envelopes[:number], *good.envelopes[number + 1 :])
        code, signers, signed = good.verdict(good.payload, envelopes)
        assert code != "Admitted" or (signers, set(signed)) == (good.signers, {digest_of(good.payload)})
        return code

    return one


def altered_token(good: Good, dice: random.Random) -> str:
    *others, cms = good.envelopes
    assert cms.token is not None
    altered = cms.model_copy(update={"token": mutate(cms.token, dice)})
    code, signers, _ = good.verdict(good.payload, (altered, *others))
    assert code != "Admitted" or signers == good.signers
    return code


def altered_payload(good: Good, dice: random.Random) -> str:
    """Alter the signed bytes: whoever signed them, they are not what was signed."""
    payload = mutate(good.payload, dice)
    code, _, _ = good.verdict(payload, good.envelopes)
    assert code != "Admitted" or payload == good.payload
    return code


def altered_and_signed(good: Good, dice: random.Random) -> str:
    """Alter the statement before it is read: the reader takes it or refuses, in its own words."""
    try:
        parse_release(mutate(good.payload, dice))
    except TrustError as refusal:
        return refusal.code
    return "Read"


KINDS: dict[str, tuple[int, Callable[[Good, random.Random], str]]] = {
    "bundles as bytes": (2500, altered_signature(0, mutate)),
    "bundles as JSON": (2500, altered_signature(1, mutate_inside)),
    "OpenPGP signatures": (1500, altered_signature(2, mutate)),
    "CMS signatures": (1500, altered_signature(3, mutate)),
    "time stamps": (500, altered_token),
    "signed bytes": (500, altered_payload),
    "manifests": (1000, altered_and_signed),
}


def test_there_are_ten_thousand_alterations() -> None:
    assert sum(count for count, _ in KINDS.values()) == 10_000


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", sampled(KINDS, "signed bytes", "OpenPGP signatures", "CMS signatures"))
def test_altered_evidence_is_refused_or_means_the_same(good: Good, kind: str) -> None:
    count, alter = KINDS[kind]
    dice = random.Random(f"{SEED} {kind}")
    codes = [alter(good, dice) for _ in range(count)]
    assert sum(code != "Admitted" for code in codes) > count * 0.8, {c: codes.count(c) for c in set(codes)}
