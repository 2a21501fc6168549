"""Which signatures of a pinned OpenPGP certificate count, before and after gpg has extended its keys."""

import random
import resource
import zlib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest

from activities.drivers.signature.openpgp import OpenPgpVerifier
from activities.refusals import PolicyInvalid
from policies.model.refusals import SignatureInvalid, TrustError, WeakAlgorithm
from policies.model.trust import LAPSED, Envelope, SignatureKind, Signer, VerifiedSignature
from tests.fakes.openpgp import (
    AGREES,
    CERTIFIES,
    COMPROMISED,
    DAY,
    EXTENDED,
    KEY_REVOKED,
    MADE,
    PAYLOAD,
    RETIRED,
    SIGNED,
    SIGNS,
    SUBKEY,
    SUBKEY_REVOKED,
    UNSPECIFIED,
    USER,
    Crafted,
    Gpg,
    Made,
    flags,
    gpg_in,
    lasts,
    packet,
    subpacket,
)

NOW = MADE + 500 * DAY
LATE = NOW - DAY


@pytest.fixture
def gpg(tmp_path: Path) -> Iterator[Gpg]:
    with gpg_in(tmp_path / "gnupg") as gpg:
        yield gpg


def verifier(certificate: bytes) -> OpenPgpVerifier:
    fingerprint = pysequoia.Cert.split_bytes(certificate)[0].fingerprint.upper()
    return OpenPgpVerifier({"lead": (certificate, fingerprint)})


def judged(certificate: bytes, signature: bytes, at: datetime = NOW) -> VerifiedSignature:
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=signature)
    return verifier(certificate).verify(PAYLOAD, envelope, at)


# --- keys that gpg has made and extended ---------------------------------------------------

WAYS = [("ed25519", "sign", "1y"), ()]
"""The options of `gpg --quick-generate-key` in docs/releases.md, for a shorter time, and in install.md."""


@pytest.mark.parametrize("extended", [0, 1, 2])
@pytest.mark.parametrize("way", WAYS, ids=["releases.md", "install.md"])
@pytest.mark.parametrize("armor", [("--armor",), ()], ids=["armored", "binary"])
def test_what_a_key_has_signed_counts_however_often_it_was_extended_since(
    gpg: Gpg, way: tuple[str, ...], extended: int, armor: tuple[str, ...]
) -> None:
    """gpg replaces the signatures that bind a key: each release that it had signed was refused."""
    gpg("--quick-generate-key", "ana@vpn.example", *way, at=MADE)
    certificate = gpg(*armor, "--export", "ana@vpn.example")
    signature = gpg("--armor", "--detach-sign", at=SIGNED, content=PAYLOAD)
    for time in range(extended):
        gpg("--quick-set-expire", gpg.fingerprint, "5y", at=EXTENDED + time * DAY)
        certificate += gpg(*armor, "--export", "ana@vpn.example")
    assert judged(certificate, signature, SIGNED + DAY).identity == gpg.fingerprint
    after = EXTENDED + 3 * 365 * DAY
    if extended:
        assert judged(certificate, signature, after).signed_at == SIGNED
        assert judged(certificate, gpg("--detach-sign", at=NOW, content=PAYLOAD), after).signed_at == NOW
        return
    with pytest.raises(SignatureInvalid) as refused:
        judged(certificate, signature, after)
    assert refused.value.reason == LAPSED


@pytest.mark.parametrize("way", WAYS, ids=["releases.md", "install.md"])
def test_an_extended_key_without_its_earlier_export_says_what_is_missing(
    gpg: Gpg, way: tuple[str, ...]
) -> None:
    gpg("--quick-generate-key", "ana@vpn.example", *way, at=MADE)
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    gpg("--quick-set-expire", gpg.fingerprint, "5y", at=EXTENDED)
    with pytest.raises(SignatureInvalid, match="put the earlier export of the key back"):
        judged(gpg("--export"), signature)


def extended_twice(gpg: Gpg) -> tuple[list[bytes], bytes]:
    """Return the exports of a key, which was extended twice, and what it signed between the extensions."""
    gpg("--quick-generate-key", "ana@vpn.example", "ed25519", "sign", "50d", at=MADE)
    exports = [gpg("--export")]
    gpg("--quick-set-expire", gpg.fingerprint, "300d", at=MADE + 40 * DAY)
    exports.append(gpg("--export"))
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    gpg("--quick-set-expire", gpg.fingerprint, "5y", at=EXTENDED)
    return [*exports, gpg("--export")], signature


def test_a_missing_export_between_two_others_is_named_by_its_times(gpg: Gpg) -> None:
    """bitcoin-core/guix.sigs: 27 signatures were "by no pinned certificate" of a key whose file had a gap."""
    (first, between, newest), signature = extended_twice(gpg)
    assert judged(first + between + newest, signature).identity == gpg.fingerprint
    ended = f"{gpg.fingerprint} had expired at 2024-02-20 00:00 UTC"
    missing = "put the export from between 2024-01-01 00:00 UTC and 2024-10-27 00:00 UTC back"
    with pytest.raises(SignatureInvalid, match=f"is of 2024-04-10 00:00 UTC.*{ended}.*{missing}") as refused:
        judged(first + newest, signature)
    assert refused.value.reason == "key"
    with pytest.raises(SignatureInvalid, match=f"{ended}; put the newest export of the key behind the one"):
        judged(first, signature)


def test_what_a_withdrawn_user_id_says_does_not_hide_a_missing_export(gpg: Gpg) -> None:
    (first, _, newest), signature = extended_twice(gpg)
    gpg("--import", content=first, at=EXTENDED)
    other = "ana@old.example"
    gpg("--quick-add-uid", gpg.fingerprint, other, at=MADE + 45 * DAY)
    gpg("--quick-revoke-uid", gpg.fingerprint, other, at=MADE + 46 * DAY)
    with pytest.raises(SignatureInvalid, match="put the export from between 2024-01-01"):
        judged(first + newest + gpg("--export"), signature)


def test_what_a_subkey_has_signed_counts_after_it_was_extended(gpg: Gpg) -> None:
    """docs/releases.md: subkeys are extended by `'*'`."""
    gpg("--quick-generate-key", "ana@vpn.example", "rsa2048", "cert", "1y", at=MADE)
    gpg("--quick-add-key", gpg.fingerprint, "ed25519", "sign", "1y", at=MADE)
    before = gpg("--export")
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    gpg("--quick-set-expire", gpg.fingerprint, "5y", at=EXTENDED)
    with pytest.raises(SignatureInvalid, match="has expired"):
        judged(before + gpg("--export"), signature, NOW)
    gpg("--quick-set-expire", gpg.fingerprint, "5y", "*", at=EXTENDED + DAY)
    whole = before + gpg("--export")
    found = judged(whole, signature, NOW)
    assert found.signing_key != found.identity == gpg.fingerprint
    (pinned,) = verifier(whole).pinned()
    assert pinned.ends is not None
    assert pinned.ends > NOW + 3 * 365 * DAY


def test_a_file_has_one_certificate_and_nothing_that_is_not_read(gpg: Gpg) -> None:
    gpg("--quick-generate-key", "ana@vpn.example", "ed25519", "sign", "1y", at=MADE)
    armored, binary = gpg("--armor", "--export"), gpg("--export")
    with pytest.raises(PolicyInvalid, match="behind its last armored export, which nobody reads"):
        verifier(armored + binary)
    with pytest.raises(PolicyInvalid, match="is not exactly the one with fingerprint"):
        verifier(binary + Crafted().content())


@pytest.mark.sweep
@pytest.mark.parametrize("suite", ["Cv25519", "Cv448", "P256", "P384", "P521", "RSA2k", "RSA4k"])
@pytest.mark.parametrize("form", ["RFC4880", "RFC9580"])
def test_signatures_by_keys_of_every_usual_algorithm_count(form: str, suite: str) -> None:
    key = pysequoia.Tsk.generate(
        "lead",
        profile=getattr(pysequoia.Profile, form),
        cipher_suite=getattr(pysequoia.CipherSuite, suite),
    )
    certificate = bytes(key.extract_certificate())
    for payload, good in ((PAYLOAD, True), (b"other", False)):
        signature = pysequoia.sign(key.signer(), payload, mode=pysequoia.SignatureMode.DETACHED)
        if good:
            assert judged(certificate, signature, datetime.now(UTC)).signed_at is not None
            continue
        with pytest.raises(SignatureInvalid, match="by no pinned certificate over these bytes"):
            judged(certificate, signature, datetime.now(UTC))


def test_a_key_with_signatures_of_its_own_by_sha1_is_named_with_what_mends_it(gpg: Gpg) -> None:
    """GnuPG 1.4 and 2.0 made them; what such a key signed was "by no pinned certificate"."""
    made = ("--quick-generate-key", "old@vpn.example", "rsa2048", "sign", "never")
    gpg("--cert-digest-algo", "SHA1", *made, at=MADE)
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    certificate = gpg("--export")
    mend = f"`gpg --quick-set-expire {gpg.fingerprint} 5y`"
    with pytest.raises(WeakAlgorithm, match=r"the OpenPGP key lead.*by SHA1 alone.*forged") as refused:
        judged(certificate, signature)
    assert mend in str(refused.value)
    (pinned,) = verifier(certificate).pinned()
    assert pinned.fault.startswith("nothing counts that the OpenPGP key lead signs")
    assert mend in pinned.fault
    assert pinned.ends is None
    gpg("--quick-set-expire", gpg.fingerprint, "5y", at=EXTENDED)
    (pinned,) = verifier(gpg("--export")).pinned()
    assert not pinned.fault
    with pytest.raises(
        WeakAlgorithm, match=f"at that time .* about {gpg.fingerprint} by SHA1 alone.*sign again"
    ):
        judged(certificate + gpg("--export"), signature)
    signature = gpg("--detach-sign", at=EXTENDED + DAY, content=PAYLOAD)
    assert judged(gpg("--export"), signature).identity == gpg.fingerprint


def test_what_others_certify_of_a_key_by_sha1_does_not_make_it_strong(gpg: Gpg) -> None:
    """bitcoin-core/guix.sigs: such a key was said to lack an earlier export, which did not help."""
    made = ("--quick-generate-key", "old@vpn.example", "rsa2048", "sign", "never")
    gpg("--cert-digest-algo", "SHA1", *made, at=MADE)
    old = gpg.fingerprint
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    gpg("--quick-generate-key", "ben@vpn.example", "ed25519", "sign", "never", at=MADE)
    gpg("--local-user", "ben@vpn.example", "--quick-sign-key", old, at=EXTENDED)
    certificate = gpg("--export", "old@vpn.example")
    with pytest.raises(WeakAlgorithm, match=f"{old} has signatures of its certificate by SHA1 alone"):
        judged(certificate, signature)
    (pinned,) = verifier(certificate).pinned()
    assert "by SHA1 alone" in pinned.fault


def test_a_key_of_a_curve_that_is_not_supported_is_named_as_one_that_cannot_be_verified(gpg: Gpg) -> None:
    """bitcoin-core/guix.sigs: it was "not for signing"."""
    gpg("--quick-generate-key", "ana@vpn.example", "secp256k1", "sign", "never", at=MADE)
    signature = gpg("--detach-sign", at=SIGNED, content=PAYLOAD)
    why = f"no signature of {gpg.fingerprint} about itself that can be verified here.*such as secp256k1"
    with pytest.raises(SignatureInvalid, match=why):
        judged(gpg("--export"), signature)
    (pinned,) = verifier(gpg("--export")).pinned()
    assert pinned.fault.startswith(
        "nothing counts that the OpenPGP key lead signs: its file has no signature"
    )


def test_a_primary_key_by_sha1_keeps_its_subkeys_from_signing() -> None:
    crafted = Crafted(hashed_by=2)
    with pytest.raises(WeakAlgorithm, match="by SHA1 alone"):
        judged(crafted.content(), crafted.signature(LATE))
    (pinned,) = verifier(crafted.content()).pinned()
    assert f"`gpg --quick-set-expire {crafted.primary.fingerprint} 5y`" in pinned.fault


@pytest.mark.parametrize(("binding", "agreeing"), [(2, 10), (2, 2)])
def test_a_subkey_by_sha1_is_named_with_what_mends_it(gpg: Gpg, binding: int, agreeing: int) -> None:
    """gpg extends a subkey by the hash that it finds, so only another subkey helps."""
    crafted = Crafted(subkey_hashed_by=binding, agreeing_hashed_by=agreeing)
    with pytest.raises(WeakAlgorithm, match="by SHA1 alone"):
        judged(crafted.content(), crafted.signature(LATE))
    (pinned,) = verifier(crafted.content()).pinned()
    command = ("--quick-add-key", crafted.primary.fingerprint, "ed25519", "sign", "5y")
    assert f"`gpg {' '.join(command)}`" in pinned.fault
    gpg("--import", content=crafted.content(secret=True), at=NOW)
    gpg("--quick-set-expire", crafted.primary.fingerprint, "5y", "*", at=NOW)
    (still,) = verifier(gpg("--export")).pinned()
    assert still.fault == pinned.fault
    gpg(*command, at=NOW)
    signature = gpg("--detach-sign", at=NOW, content=PAYLOAD)
    assert judged(gpg("--export"), signature, NOW + DAY).identity == crafted.primary.fingerprint


def test_a_certificate_without_a_key_that_signs_is_named(gpg: Gpg) -> None:
    gpg("--quick-generate-key", "ana@vpn.example", "ed25519", "cert", "never", at=MADE)
    (pinned,) = verifier(gpg("--export")).pinned()
    assert pinned.fault.endswith("is not for signing, and has no subkey that is")


# --- certificates that gpg does not make ---------------------------------------------------


def test_a_subkey_that_is_bound_as_it_must_be_signs(gpg: Gpg) -> None:
    crafted = Crafted()
    found = judged(crafted.content(), crafted.signature(LATE))
    assert (found.signing_key, found.identity) == (crafted.subkey.fingerprint, crafted.primary.fingerprint)
    assert gpg.finds_good(crafted.content(), PAYLOAD, crafted.signature(LATE), NOW)


BAD: dict[str, Crafted] = {
    "a subkey that is not for signing": Crafted(subkey_flags=flags(CERTIFIES)),
    "a subkey that has not agreed": Crafted(agreed=False),
    "a subkey to which another key has agreed": Crafted(agreeing=Made(MADE)),
    "another's subkey": Crafted(binder=Made(MADE)),
    "a subkey by a broken signature": Crafted(broken=True),
    "a subkey that was bound before it was made": Crafted(subkey=Made(EXTENDED + DAY)),
    "a subkey that was revoked without a reason": Crafted().revoke(SUBKEY_REVOKED, None),
    "a subkey that others know": Crafted().revoke(SUBKEY_REVOKED, COMPROMISED),
    "a certificate that was revoked without a reason": Crafted().revoke(KEY_REVOKED, UNSPECIFIED),
    "a certificate that others know": Crafted().revoke(KEY_REVOKED, COMPROMISED),
    "a certificate that was retired, and that others know": Crafted()
    .revoke(KEY_REVOKED, RETIRED)
    .revoke(KEY_REVOKED, COMPROMISED),
    "a subkey that had ended when it signed": Crafted(subkey_ends=lasts(50 * DAY)),
    "a certificate that had ended when its subkey signed": Crafted(ends=lasts(50 * DAY)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_key_that_gpg_does_not_take_signs_nothing_that_counts(gpg: Gpg, case: str) -> None:
    crafted = BAD[case]
    with pytest.raises(TrustError):
        judged(crafted.content(), crafted.signature(LATE), NOW)
    assert not gpg.finds_good(crafted.content(), PAYLOAD, crafted.signature(LATE), NOW)


def test_the_newest_signature_that_binds_a_key_counts() -> None:
    """An end that its holder has brought forward is not undone by an older signature in the file."""
    crafted = Crafted()
    agreed = subpacket(32, crafted.subkey.sign(AGREES, crafted.bound, EXTENDED))
    parts = (flags(SIGNS), lasts(350 * DAY))
    newer = crafted.primary.sign(SUBKEY, crafted.bound, EXTENDED + DAY, *parts, beside=[agreed])
    crafted.more = (packet(2, newer),)
    with pytest.raises(SignatureInvalid, match="has expired"):
        judged(crafted.content(), crafted.signature(EXTENDED + DAY / 2))


def test_packets_of_kinds_that_the_library_does_not_know_change_nothing() -> None:
    """A certificate has signatures by others, of whatever algorithm; the library raises an error for each."""
    crafted = Crafted()
    of_user = crafted.primary.sign(USER, crafted.certified, EXTENDED)
    for place in (1, 2, 3):  # kind, algorithm and hash
        crafted.more += (packet(2, of_user[:place] + b"\x63" + of_user[place + 1 :]),)
    other = crafted.subkey.body
    crafted.more += (packet(14, other[:5] + b"\x63" + other[6:]), packet(2, b"\x09" + of_user[1:]))
    assert judged(crafted.content(), crafted.signature(LATE)).identity


def test_a_damaged_certificate_is_refused_or_judged_and_raises_nothing_else() -> None:
    crafted, dice = Crafted(), random.Random(7)
    pinned, envelope = crafted.primary.fingerprint, Envelope(kind=SignatureKind.OPENPGP, content=b"")
    for _ in range(400):
        content = bytearray(crafted.content())
        for _ in range(dice.choice((1, 1, 3))):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        with suppress(PolicyInvalid, TrustError):
            found = OpenPgpVerifier({"lead": (bytes(content), pinned)})
            assert len(found.pinned()) < 2
            found.verify(PAYLOAD, envelope.model_copy(update={"content": crafted.signature(LATE)}), NOW)


def test_a_certificate_that_falsely_names_anothers_subkey_hides_nobody() -> None:
    good = Crafted()
    thief = Crafted(subkey=good.subkey, agreed=False).revoke(KEY_REVOKED, COMPROMISED)
    pinned = {
        name: (one.content(), one.primary.fingerprint) for name, one in (("thief", thief), ("lead", good))
    }
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=good.signature(LATE))
    assert OpenPgpVerifier(pinned).verify(PAYLOAD, envelope, NOW).root == "lead"


# --- files of signatures -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["bare", "armored", "behind a signature"])
def test_a_file_that_unpacks_to_gigabytes_is_refused_unread(form: str) -> None:
    """469 bytes of nested compressed packets took 1.2 GB, and the process ended; no caller can catch that."""
    bomb = b"\0" * (1 << 28)
    for _ in range(3):
        pressed = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packet(8, b"\1" + pressed.compress(bomb) + pressed.flush())
    content = {
        "bare": bomb,
        "armored": pysequoia.armor(bomb, pysequoia.ArmorKind.Signature).encode(),
        "behind a signature": Crafted().signature(LATE) + bomb,
    }[form]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    envelope = Envelope(kind=SignatureKind.OPENPGP, content=content)
    lead = verifier(Crafted().content())
    with pytest.raises(SignatureInvalid, match="not exactly one OpenPGP signature"):
        lead.verify(PAYLOAD, envelope, NOW)
    assert not lead.claims(envelope, Signer.model_construct(openpgp="lead"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
