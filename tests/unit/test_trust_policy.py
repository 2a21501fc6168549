"""What may be written into a trust policy: what cannot mean what it says is refused with the whole policy."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from policies.approvals import required
from policies.model.origin import keeps_secrets, origin_of
from policies.model.trust import ApprovalRule, ApprovalRules, Change, SignatureKind, TrustPolicy
from policies.model.value import digest_of
from tests.unit.test_trust import HEX, TWO, policy, signature, signer, verdict

FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"
OPENPGP = {"lead": {"cert": "lead.asc", "fingerprint": FINGERPRINT}}


def changed(before: TrustPolicy = TWO, **fields: Any) -> TrustPolicy:
    return TrustPolicy.model_validate_json(json.dumps(before.model_dump(mode="json") | fields))


@pytest.mark.parametrize("written", ["0aff", "0x0A:FF", "0AFF", "00:0a:ff", "0A FF", "aff", " 0x0aFF "])
def test_a_serial_number_is_revoked_however_it_is_printed(written: str) -> None:
    """M1: an upper-case serial with a leading 0, as openssl prints it, was not revoked."""
    revoking = changed(revoked={"cert_serials": [written]})
    signed = (signature("bot"), signature("lead", serial="aff"))
    assert verdict(*signed, policy=revoking).code == "SignerRevoked"


@pytest.mark.parametrize("written", [" lead@corp.example", "Lead@Corp.Example", "LEAD@CORP.EXAMPLE\n"])
def test_a_person_is_revoked_however_the_mail_address_is_written(written: str) -> None:
    """M1: ` lead@…` was loaded, and revoked nobody."""
    rule = policy({"any": [signer("Lead@corp.example")]}, {"any": 1})
    revoking = changed(rule, revoked={"identities": [written]})
    assert verdict(signature("Lead@corp.example"), policy=revoking).code == "SignerRevoked"


@pytest.mark.parametrize(
    "written", [FINGERPRINT, FINGERPRINT.lower(), f"0x{FINGERPRINT}", "0123 4567 89ab cdef" * 2 + " 01234567"]
)
def test_a_key_is_revoked_however_its_fingerprint_is_printed(written: str) -> None:
    """M1: fingerprints were compared letter by letter."""
    rule = changed(openpgp=OPENPGP)
    signed = signature(FINGERPRINT, kind=SignatureKind.OPENPGP, root="lead", issuer="")
    revoking = changed(rule, revoked={"openpgp": [written]})
    assert verdict(signed, signature("bot"), policy=revoking).code == "SignerRevoked"


def test_a_signer_is_revoked_by_the_fingerprint_of_the_subkey_that_signed() -> None:
    """S4: only the primary key's fingerprint was compared."""
    rule = changed(openpgp=OPENPGP)
    subkey = "F" * 40
    signed = signature(FINGERPRINT, kind=SignatureKind.OPENPGP, root="lead", issuer="", signing_key=subkey)
    revoking = changed(rule, revoked={"openpgp": [subkey.lower()]})
    assert verdict(signed, signature("bot"), policy=revoking).code == "SignerRevoked"
    other = changed(rule, revoked={"openpgp": ["E" * 40]})
    assert verdict(signed, signature("bot"), policy=other).code != "SignerRevoked"


@pytest.mark.parametrize("written", [HEX.upper(), f"sha256:{HEX}", f" {HEX}\n"])
@pytest.mark.parametrize("field", ["manifests", "spki_sha256"])
def test_a_digest_is_revoked_however_it_is_printed(field: str, written: str) -> None:
    """M1: digests in capitals."""
    revoking = changed(revoked={field: [written]})
    signed = (signature("bot"), signature("lead", spki_sha256=HEX))
    assert verdict(*signed, policy=revoking).code == "SignerRevoked"


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("cert_serials", ""),
        ("cert_serials", "0x"),
        ("cert_serials", "00"),
        ("cert_serials", "serial=0A"),
        ("cert_serials", "a" * 41),
        ("cert_serials", 1234),
        ("identities", "lead"),
        ("identities", ""),
        ("identities", "lead@corp.example, bob@corp.example"),
        ("identities", "@"),
        ("openpgp", "89ABCDEF01234567"),
        ("openpgp", "lead@corp.example"),
        ("manifests", HEX[:-1]),
        ("spki_sha256", f"md5:{HEX}"),
    ],
)
def test_a_revocation_that_can_revoke_nothing_is_refused(field: str, written: object) -> None:
    """M1: `ab cd ef` and worse were loaded, and nobody noticed that they had no effect."""
    with pytest.raises(ValidationError, match=field):
        changed(revoked={field: [written]})


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "repo.corp.example:443",
            "http://[::1",
            "http://h:99999",
            "http://x@internal",
            "https://",
            "ftp://h",
        ),
        *("https://h/path", "https://h?q", "https://h#f", " https://h", "https://a b", "https://h\\@x", ""),
    ],
)
def test_a_source_that_is_no_origin_refuses_the_policy(origin: str) -> None:
    """M2: it became the origin of everything malformed, and opened the list."""
    with pytest.raises(ValidationError, match="origin"):
        changed(sources={"allow": [origin]})


def test_an_origin_has_one_spelling() -> None:
    """M2: what is allowed and what is asked for are compared in the same words."""
    assert changed(sources={"allow": ["https://Repo.Example/"]}).sources.allow == (
        "https://repo.example:443",
    )
    assert origin_of("http://[::1]:5000/x") == "http://[::1]:5000"


@pytest.mark.parametrize(
    "sources",
    [
        {"allow": ["https://a", "https://b"], "credential": "env:TOKEN"},
        {"allow": [], "credential": "env:TOKEN"},
        {"allow": ["https://a"], "credentials": {"https://b": "env:TOKEN"}},
        {"allow": ["http://a"], "credentials": {"http://a": "env:TOKEN"}},
        {"allow": ["http://a"], "credential": "env:TOKEN"},
        {"allow": ["https://a"], "credential": "env:A", "credentials": {"https://a": "env:B"}},
        {"allow": ["https://a"], "credentials": {"https://a": "hunter2"}},
    ],
)
def test_a_credential_without_one_safe_origin_refuses_the_policy(sources: dict[str, object]) -> None:
    """M4: it went to whichever allowed origin an order named, over plain http too."""
    with pytest.raises(ValidationError, match="credential"):
        changed(sources=sources)


def test_a_credential_belongs_to_its_origin() -> None:
    """M4: one that is named for an origin, or for the only one."""
    alone = changed(sources={"allow": ["https://a"], "credential": "env:A"}).sources
    assert alone.secrets == {"https://a:443": "env:A"}
    both = changed(
        sources={"allow": ["https://a", "http://localhost:5000"], "credentials": {"https://a/": "env:A"}}
    )
    assert both.sources.secrets == {"https://a:443": "env:A"}
    assert keeps_secrets("http://127.0.0.1:80")
    assert not keeps_secrets("http://127.evil.example:80")


def mixed(**person: str) -> TrustPolicy:
    """Return a policy of two seats, for a Sigstore identity and an OpenPGP key."""
    before = changed(openpgp=OPENPGP).model_dump(mode="json")
    before["rules"][0]["groups"] = {
        "builder": [signer("lead@corp.example", person=person.get("builder"))],
        "manager": [{"openpgp": "lead", "person": person.get("manager")}],
    }
    return TrustPolicy.model_validate_json(json.dumps(before))


def test_one_person_with_keys_of_two_kinds_takes_one_seat() -> None:
    """Low: a person with Sigstore and OpenPGP keys filled two seats unless `person:` was written by hand."""
    signed = (
        signature("lead@corp.example"),
        signature(FINGERPRINT, kind=SignatureKind.OPENPGP, root="lead", issuer=""),
    )
    assert verdict(*signed, policy=mixed(builder="Lead", manager="lead ")).code == "ThresholdNotMet"
    assert verdict(*signed, policy=mixed(builder="lead", manager="bob")).admitted


@pytest.mark.parametrize(
    "person", [{}, {"builder": "lead"}, {"manager": "lead"}, {"builder": "", "manager": "x"}]
)
def test_a_policy_of_several_kinds_says_of_everybody_who_it_is(person: dict[str, str]) -> None:
    """Low: whose key is whose cannot be guessed, so the policy has to say it."""
    with pytest.raises(ValidationError, match="person"):
        mixed(**person)


def test_two_spellings_and_two_tags_of_one_signer_are_one_seat() -> None:
    """Low: neither capitals nor another tag of the same workflow make a second person."""
    spelled = policy({"any": [signer("Lead@x.example"), signer("lead@x.example")]}, {"any": 2})
    both = (signature("Lead@x.example"), signature("lead@x.example"))
    assert verdict(*both, policy=spelled).code == "ThresholdNotMet"
    workflow = "https://ci.example/build.yml@refs/tags/"
    robot = {"sigstore": "corp", "issuer": signer("x")["issuer"], "identity_prefix": workflow}
    by_tags = policy({"any": [robot, signer("lead")]}, {"any": 2})
    tags = (signature(f"{workflow}v1"), signature(f"{workflow}v2"))
    assert verdict(*tags, policy=by_tags).code == "ThresholdNotMet"


NOBODY = ApprovalRules(
    config=ApprovalRule(count=0, unless_keys_in=("log-level",)), credentials=ApprovalRule(count=0)
)


@pytest.mark.parametrize(
    ("keys", "credentials", "signed", "count", "kind"),
    [
        (("log-level",), (), (), 0, "binary_only"),
        (("log-level",), (), ("config",), 1, "config"),
        (("log-level",), (), ("credentials",), 0, "binary_only"),
        (("auth",), ("auth",), ("credentials",), 1, "credentials"),
        ((), (), ("config", "credentials"), 0, "binary_only"),
    ],
)
def test_what_the_signers_ask_approval_for_takes_somebody_whatever_the_policy_says(
    keys: tuple[str, ...], credentials: tuple[str, ...], signed: tuple[str, ...], count: int, kind: str
) -> None:
    """H2: the manifest's `requires_approval_for` was accepted and ignored."""
    digest = digest_of(b"")
    change = Change(manifest=digest, before=digest, after=digest, keys=keys, credentials=credentials)
    found = required([change], NOBODY, 0, signed=signed)
    assert (found.count, found.kind) == (count, kind)


def test_a_policy_that_asks_for_more_people_than_the_signers_wins() -> None:
    """H2: the signers' word is the least, not the most."""
    digest = digest_of(b"")
    change = Change(manifest=digest, before=digest, after=digest, keys=("auth",), credentials=("auth",))
    assert required([change], ApprovalRules(), 0, signed=("credentials",)).count == 2
