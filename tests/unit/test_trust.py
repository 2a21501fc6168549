"""Who is trusted: thresholds of distinct people, scope, time, downgrade, and documents with one meaning."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.model.refusals import (
    Expired,
    ManifestInvalid,
    ReplayDetected,
    ScopeMismatch,
    SubjectMismatch,
    TrustError,
)
from policies.model.release import (
    INDEX_PREDICATE,
    RELEASE_PREDICATE,
    STATEMENT_TYPE,
    ChannelIndex,
    ReleaseLink,
    ReleaseManifest,
)
from policies.model.trust import Rule, SignatureKind, Signer, TrustPolicy, VerifiedSignature
from policies.model.value import digest_of
from policies.model.verification import TrustState, TrustVerdict
from policies.trust import strict_json
from policies.trust.admission import (
    admits,
    identities_in,
    is_by,
    refused_caller,
    require_index,
    rule_for,
)
from policies.trust.statements import parse_index, parse_release

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ISSUER = "https://idp.example"
HEX = "ab" * 32
OTHER = "cd" * 32
DIGEST = f"sha256:{HEX}"

PREDICATE: dict[str, Any] = {
    "product": "ocserv-gw",
    "version": "1.3.0",
    "channel": "stable",
    "rollback_index": 5,
    "serial": 5,
    "issued_at": (NOW - timedelta(days=1)).isoformat(),
    "expires_at": (NOW + timedelta(days=30)).isoformat(),
    "platforms": [{"os": "linux", "arch": "amd64"}],
    "daemon": {"kind": "ocserv", "executable": "usr/sbin/ocserv"},
    "artifacts": [
        {
            "name": "root.tar",
            "sha256": HEX,
            "size": 10,
            "media_type": "application/x-tar",
            "unpack": "tar",
            "files": [{"path": "usr/sbin/ocserv", "sha256": OTHER, "size": 3, "mode": 493}],
        },
        {"name": "config/ocserv.conf.template", "sha256": OTHER, "size": 3, "media_type": "text/plain"},
    ],
    "config_schema": {"sha256": OTHER, "size": 3, "version": 1},
    "config_compat": {"reads": [1, 1], "writes": 1},
    "from_versions": {"min": 0},
    "protocol_compat": ["ocserv"],
    "drain": {"min_seconds": 0, "max_seconds": 60},
    "requires_approval_for": ["config"],
}


def statement(predicate_type: str, predicate: dict[str, Any], subjects: dict[str, str]) -> bytes:
    named = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in subjects.items()]
    whole = {
        "_type": STATEMENT_TYPE,
        "subject": named,
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return json.dumps(whole).encode()


def release_payload(**fields: object) -> bytes:
    predicate = PREDICATE | fields
    artifacts = predicate["artifacts"]
    assert isinstance(artifacts, list)
    return statement(RELEASE_PREDICATE, predicate, {a["name"]: a["sha256"] for a in artifacts})


def manifest(**fields: object) -> ReleaseManifest:
    return parse_release(release_payload(**fields))


def index(serial: int = 1, **fields: object) -> ChannelIndex:
    predicate = {
        "product": "ocserv-gw",
        "channel": "stable",
        "serial": serial,
        "issued_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(days=7)).isoformat(),
        "current": [{"manifest_sha256": HEX, "rollback_index": 5}],
    }
    return parse_index(statement(INDEX_PREDICATE, predicate | fields, {"a": HEX}))


def signer(name: str, **fields: object) -> dict[str, object]:
    return {"sigstore": "corp", "issuer": ISSUER, "identity": name} | fields


def policy(
    groups: dict[str, list[dict[str, object]]], require: dict[str, int], **more: object
) -> TrustPolicy:
    rule = {
        "product": "ocserv-gw",
        "channel": "stable",
        "groups": groups,
        "require": [{"group": group, "count": count} for group, count in require.items()],
        "index": "none",
    }
    document = {
        "version": 1,
        "trust_roots": {"corp": {"trusted_root": "corp.json", "sha256": HEX}},
        "rules": [rule | more],
    }
    return TrustPolicy.model_validate_json(json.dumps(document))


TWO = policy({"builder": [signer("bot")], "manager": [signer("lead")]}, {"builder": 1, "manager": 1})


def signature(name: str, **fields: Any) -> VerifiedSignature:
    known: dict[str, Any] = {
        "kind": SignatureKind.SIGSTORE,
        "root": "corp",
        "issuer": ISSUER,
        "identity": name,
        "payload_digest": DIGEST,
        "signed_at": NOW - timedelta(hours=1),
    }
    return VerifiedSignature(**(known | fields))


def verdict(
    *signatures: VerifiedSignature,
    policy: TrustPolicy = TWO,
    state: TrustState | None = None,
    now: datetime = NOW,
    release: ReleaseManifest | None = None,
    index: ChannelIndex | None = None,
    scope: tuple[str, str] = ("ocserv-gw", "stable"),
) -> TrustVerdict:
    return admits(
        release or manifest(),
        DIGEST,
        signatures,
        policy,
        state or TrustState(),
        now=now,
        product=scope[0],
        channel=scope[1],
        index=index,
    )


BOTH = (signature("bot"), signature("lead"))


def test_two_people_are_enough_and_the_verdict_says_why() -> None:
    found = verdict(*BOTH)
    assert found.admitted
    assert found.signers == (f"builder: bot ({ISSUER})", f"manager: lead ({ISSUER})")
    assert found.reason.endswith("ocserv-gw/stable needs 1 of builder and 1 of manager")


@pytest.mark.parametrize(
    ("signatures", "code"),
    [
        ((), "SignatureMissing"),
        ((signature("bot"),), "ThresholdNotMet"),
        ((signature("bot"), signature("bot")), "ThresholdNotMet"),
        ((signature("bot"), signature("mallory")), "ThresholdNotMet"),
        ((signature("mallory"),), "SignerNotAllowed"),
        ((signature("bot"), signature("lead", payload_digest=f"sha256:{OTHER}")), "ThresholdNotMet"),
        ((signature("bot"), signature("lead", issuer="https://other.example")), "ThresholdNotMet"),
        ((signature("bot"), signature("lead", root="other")), "ThresholdNotMet"),
        ((signature("bot", payload_digest=f"sha256:{OTHER}"),), "SubjectMismatch"),
        ((signature("bot"), signature("lead", signed_at=NOW - timedelta(days=3))), "SignatureInvalid"),
        ((signature("bot"), signature("lead", signed_at=NOW + timedelta(days=31))), "SignatureInvalid"),
    ],
)
def test_anything_less_than_both_people_over_these_bytes_is_refused(
    signatures: tuple[VerifiedSignature, ...], code: str
) -> None:
    assert verdict(*signatures).code == code


def test_one_person_in_two_groups_takes_one_seat() -> None:
    both = policy({"builder": [signer("lead")], "manager": [signer("lead")]}, {"builder": 1, "manager": 1})
    assert verdict(signature("lead"), policy=both).code == "ThresholdNotMet"


def test_two_keys_of_one_person_count_once() -> None:
    keys = [signer("lead", person="ann"), signer("ann@home", person="ann")]
    two = policy({"manager": keys}, {"manager": 2})
    assert verdict(signature("lead"), signature("ann@home"), policy=two).code == "ThresholdNotMet"


def test_seats_are_given_so_that_everybody_fits() -> None:
    flexible = policy(
        {"any": [signer("ann"), signer("bob")], "manager": [signer("ann")]}, {"any": 1, "manager": 1}
    )
    assert verdict(signature("ann"), signature("bob"), policy=flexible).admitted


@given(st.lists(st.sampled_from(["bot", "lead", "mallory"]), max_size=6))
def test_more_signatures_never_admit_less_and_fewer_people_never_more(names: list[str]) -> None:
    admitted = verdict(*[signature(name) for name in names]).admitted
    assert admitted == ({"bot", "lead"} <= set(names))


@pytest.mark.parametrize(
    ("fields", "value"),
    [("identities", "lead@corp.example"), ("cert_serials", "0a"), ("spki_sha256", HEX), ("manifests", HEX)],
)
def test_what_is_revoked_is_refused_whatever_signatures_say(fields: str, value: str) -> None:
    by_mail = policy(
        {"builder": [signer("bot")], "manager": [signer("lead@corp.example")]}, {"builder": 1, "manager": 1}
    )
    document = by_mail.model_dump(mode="json") | {"revoked": {fields: [value]}}
    revoking = TrustPolicy.model_validate_json(json.dumps(document))
    signed = (signature("bot"), signature("lead@corp.example", serial="0a", spki_sha256=HEX))
    assert verdict(*signed, policy=revoking).code == "SignerRevoked"


def test_a_workflow_identity_may_be_named_by_its_tags() -> None:
    workflow = "https://ci.example/build.yml@refs/tags/"
    by_prefix = Signer(sigstore="corp", issuer=ISSUER, identity_prefix=workflow)
    assert is_by(signature(f"{workflow}v1"), by_prefix)
    assert not is_by(signature("https://ci.example/build.yml@refs/heads/main"), by_prefix)


GITHUB = "https://github.com/acme/workflows/.github/workflows/sign.yml@refs/tags/"
GITLAB = "https://gitlab.example/acme/tools/workflows//.gitlab-ci.yml@refs/tags/"
OWN = {GITHUB: "https://github.com/acme/workflows", GITLAB: "https://gitlab.example/acme/tools/workflows"}
STRANGER = "https://github.com/mallory/anything"


@pytest.mark.parametrize("key", ["identity", "identity_prefix"])
@pytest.mark.parametrize("tags", [GITHUB, GITLAB])
def test_a_repository_that_calls_anothers_workflow_is_its_signer_only_where_the_policy_names_it(
    tags: str, key: str
) -> None:
    """Fulcio certifies a reusable workflow by its own address, whichever repository calls it."""
    workflow = f"{tags}v1"
    plain = Signer(sigstore="corp", issuer=ISSUER, **{key: workflow if key == "identity" else tags})
    caller = plain.model_copy(update={"source_repository": STRANGER})
    for repository, without_key, with_key in (
        (STRANGER, False, True),
        (f"{OWN[tags]}s", False, False),
        (OWN[tags].removesuffix("s"), False, False),
        (OWN[tags], True, False),
        ("", True, False),
    ):
        found = signature(workflow, source_repository=repository)
        assert (is_by(found, plain), is_by(found, caller)) == (without_key, with_key), repository


def test_an_identity_that_is_no_workflow_signs_for_any_repository() -> None:
    for name in ("lead@corp.example", "https://ci.example/pipelines/7", "spiffe://corp.example/bot"):
        plain = Signer(sigstore="corp", issuer=ISSUER, identity=name)
        assert is_by(signature(name, source_repository=STRANGER), plain)


def test_the_refusal_of_a_caller_says_which_repository_it_is_and_which_key_to_write() -> None:
    workflow = f"{GITHUB}v1"
    plain = Signer(sigstore="corp", issuer=ISSUER, identity=workflow)
    named = plain.model_copy(update={"source_repository": OWN[GITHUB]})
    stranger = signature(workflow, source_repository=STRANGER)
    for signers in ([plain], [named], [plain, named]):
        refused = refused_caller(stranger, signers)
        assert refused is not None
        assert f"{workflow} was called by {STRANGER}" in str(refused)
        assert f"write `source_repository: {STRANGER}`" in str(refused)
    assert "names no repository" in str(refused_caller(signature(workflow), [named]))
    other = Signer(sigstore="corp", issuer="https://other.example", identity=workflow)
    for found, signers in (
        (signature(workflow, source_repository=OWN[GITHUB]), [plain, named]),
        (stranger, [other, Signer(openpgp="lead")]),
        (signature("mallory@corp.example"), [plain, named]),
    ):
        assert refused_caller(found, signers) is None


def test_a_called_workflow_is_shown_with_its_caller_and_known_by_its_identity() -> None:
    workflow = f"{GITHUB}v1"
    called = policy({"builder": [signer(workflow, source_repository=STRANGER, person="bot")]}, {"builder": 1})
    found = verdict(signature(workflow, source_repository=STRANGER), policy=called)
    assert found.signers == (f"builder: bot as {workflow} ({ISSUER}, called by {STRANGER})",)
    assert {"bot", workflow} <= identities_in(found.signers[0])
    own = policy({"builder": [signer(workflow)]}, {"builder": 1})
    by_itself = verdict(signature(workflow, source_repository=OWN[GITHUB]), policy=own)
    assert by_itself.signers == (f"builder: {workflow} ({ISSUER})",)


def test_an_openpgp_signer_is_its_pinned_certificate() -> None:
    found = signature("FINGERPRINT", kind=SignatureKind.OPENPGP, root="lead", issuer="")
    assert is_by(found, Signer(openpgp="lead"))
    assert not is_by(found, Signer(openpgp="other"))


@pytest.mark.parametrize("fields", [{"product": "other"}, {"channel": "canary"}])
def test_a_release_of_another_scope_is_refused(fields: dict[str, str]) -> None:
    assert verdict(*BOTH, release=manifest(**fields)).code == "ScopeMismatch"


def test_a_scope_nobody_may_sign_for_admits_nothing() -> None:
    with pytest.raises(ScopeMismatch):
        rule_for(TWO, "ocserv-gw", "canary")
    assert verdict(*BOTH, scope=("ocserv-gw", "canary")).code == "ScopeMismatch"


def test_a_policy_without_rules_is_read_and_admits_nobodys_release() -> None:
    """docs/install.md has people begin with it."""
    nobody = TrustPolicy.model_validate_json('{"version": 1, "rules": []}')
    with pytest.raises(ScopeMismatch, match="add one"):
        rule_for(nobody, "ocserv-gw", "stable")


# --- time and order ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "now", "code"),
    [
        ({}, NOW + timedelta(days=30), "Expired"),
        ({}, NOW + timedelta(days=29), "Admitted"),
    ],
)
def test_an_expired_manifest_is_refused(fields: dict[str, str], now: datetime, code: str) -> None:
    assert verdict(*BOTH, release=manifest(**fields), now=now).code == code


def test_a_rule_may_want_fresher_releases_than_their_own_expiry() -> None:
    fresh = policy(
        {"builder": [signer("bot")], "manager": [signer("lead")]},
        {"builder": 1, "manager": 1},
        max_age_days=2,
    )
    assert verdict(*BOTH, policy=fresh).admitted
    assert verdict(*BOTH, policy=fresh, now=NOW + timedelta(days=2)).detail == "age"


def test_a_clock_set_back_does_not_make_an_expired_release_young() -> None:
    state = TrustState(seen_at=NOW + timedelta(days=30))
    assert verdict(*BOTH, state=state, now=NOW - timedelta(days=400)).code == "Expired"


def test_an_older_release_is_refused_after_a_newer_one_was_promoted() -> None:
    assert verdict(*BOTH, state=TrustState(floor=6)).code == "DowngradeRefused"
    assert verdict(*BOTH, state=TrustState(floor=5)).admitted


def test_a_promoted_release_is_reached_again_below_the_floor_and_after_its_expiry() -> None:
    state = TrustState(floor=6, promoted=(DIGEST,))
    assert verdict(*BOTH, state=state, now=NOW + timedelta(days=90)).admitted


@pytest.mark.parametrize("floor", ["rule", "state", "index"])
def test_nothing_goes_below_the_security_floor_not_even_a_promoted_release(floor: str) -> None:
    rules = TWO.rules[0].model_copy(update={"security_floor": 6 if floor == "rule" else 0})
    found = verdict(
        *BOTH,
        policy=TWO.model_copy(update={"rules": (rules,)}),
        state=TrustState(promoted=(DIGEST,), security_floor=6 if floor == "state" else 0),
        index=index(security_floor=6) if floor == "index" else None,
    )
    assert (found.code, found.detail) == ("DowngradeRefused", "security_floor")


@pytest.mark.parametrize("where", ["index", "state"])
def test_a_withdrawn_manifest_is_refused_even_if_it_was_promoted(where: str) -> None:
    state = TrustState(promoted=(DIGEST,), revoked=(DIGEST,) if where == "state" else ())
    found = verdict(*BOTH, state=state, index=index(revoked=[HEX]) if where == "index" else None)
    assert found.code == "SignerRevoked"


def test_an_index_of_another_channel_or_time_or_older_is_refused() -> None:
    state, here = TrustState(index_serial=3), {"product": "ocserv-gw", "channel": "stable"}
    require_index(index(3), state, NOW, **here)
    with pytest.raises(ScopeMismatch):
        require_index(index(3), state, NOW, product="ocserv-gw", channel="canary")
    with pytest.raises(ReplayDetected):
        require_index(index(2), state, NOW, **here)
    with pytest.raises(Expired):
        require_index(index(3), state, NOW + timedelta(days=7), **here)


# --- documents ---------------------------------------------------------------------------


def test_an_index_says_exactly_what_its_subjects_are() -> None:
    with pytest.raises(SubjectMismatch):
        index(current=[])


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b"[NaN]",
        b"[Infinity]",
        b"[1.5]",
        b"[1e3]",
        b"[" * 33 + b"]" * 33,
        b'"' + b"x" * 70_000 + b'"',
        b'"\xff"',
        b'["\\ud800"]',
        b"{",
        b"",
        b"[" + b"9" * 5000 + b"]",
    ],
)
def test_json_with_more_than_one_meaning_or_none_is_refused(raw: bytes) -> None:
    with pytest.raises(ManifestInvalid):
        strict_json.loads(raw)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=20,
    )
)
def test_plain_json_is_read_as_it_was_written(value: object) -> None:
    assert strict_json.loads(strict_json.dumps(value)) == value


def test_brackets_inside_texts_are_not_depth() -> None:
    assert strict_json.loads(b'["' + b"[" * 100 + b'\\"{{"]') == ["[" * 100 + '"{{']


OPEN_STRING = """
from policies.model.refusals import ManifestInvalid
from policies.trust import strict_json

try:
    strict_json.loads(b'"' + b'\\\\"' * (2 << 20), max_bytes=8 << 20)
except ManifestInvalid as error:
    print(error.reason)
"""


def test_a_string_without_an_end_is_looked_through_once() -> None:
    """R12: 64 KiB of it from a repository held the whole process for 40 s, 4 MiB for a day."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_STRING], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "syntax\n"


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_in_foreign_words(raw: bytes) -> None:
    for parse in (parse_release, parse_index):
        with pytest.raises(TrustError):
            parse(raw)


def altered(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(release_payload())
    change(document)
    return json.dumps(document).encode()


FILE = {"path": "usr/lib/a", "sha256": HEX, "size": 1, "mode": 420}


CHANGES: tuple[Callable[[dict[str, Any]], object], ...] = (
    lambda d: d.update(more=1),
    lambda d: d.pop("subject"),
    lambda d: d.update(subject="root.tar"),
    lambda d: d["subject"].append(d["subject"][0]),
    lambda d: d.update(predicate=[]),
    lambda d: d["predicate"].pop("serial"),
    lambda d: d["predicate"]["artifacts"][0].update(unpack="zip"),
    lambda d: d["predicate"]["artifacts"][0].update(files=[]),
    lambda d: d["predicate"]["artifacts"][0]["files"].extend([FILE, FILE]),
    lambda d: d["predicate"]["artifacts"][0]["files"].extend([FILE, FILE | {"path": "usr/LIB/A"}]),
    lambda d: d["predicate"]["artifacts"][0]["files"].extend([FILE, FILE | {"path": "usr/lib/a/b"}]),
    lambda d: d["predicate"]["artifacts"][0]["files"].append(FILE | {"path": "a//b"}),
    lambda d: d["predicate"]["artifacts"][0]["files"].append(FILE | {"path": "a\\b"}),
    lambda d: d["predicate"]["artifacts"][0].update(links=[{"path": "a", "target": "/etc"}]),
    lambda d: d["predicate"]["artifacts"][0].update(links=[{"path": "a", "target": "b/../../c"}]),
    lambda d: d["predicate"]["daemon"].update(executable="usr/sbin/other"),
    lambda d: d["predicate"]["config_schema"].update(sha256="00" * 32),
    lambda d: d["predicate"].update(expires_at=d["predicate"]["issued_at"]),
    lambda d: d["predicate"].update(issued_at="2026-11-20T12:00:00"),
)


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_manifest_that_is_not_strictly_one_is_refused(number: int) -> None:
    with pytest.raises(ManifestInvalid):
        parse_release(altered(CHANGES[number]))


def test_a_manifest_names_itself_by_its_daemons_file() -> None:
    reference = manifest().reference(DIGEST)
    assert (reference.digest, reference.executable) == (DIGEST, f"sha256:{OTHER}")


def test_a_link_may_lead_anywhere_inside_its_tree() -> None:
    assert ReleaseLink(path="usr/lib/a.so", target="../lib64/./a.so.1").target == "../lib64/./a.so.1"


@pytest.mark.parametrize(
    "fields",
    [
        {"sigstore": "corp", "openpgp": "lead"},
        {},
        {"sigstore": "corp", "issuer": ISSUER},
        {"sigstore": "corp", "identity": "a"},
        {"openpgp": "lead", "identity": "a"},
        {"cms": "corp", "identity": "a", "issuer": ISSUER},
        {"sigstore": "corp", "issuer": ISSUER, "identity_prefix": "https://ci.example/"},
        {"openpgp": "lead", "source_repository": STRANGER},
        {"cms": "corp", "identity": "https://ci.example/bot", "source_repository": STRANGER},
        {"sigstore": "corp", "issuer": ISSUER, "identity": "a@b.example", "source_repository": STRANGER},
        {"sigstore": "corp", "issuer": ISSUER, "identity": GITHUB, "source_repository": "acme/vpn"},
        {"sigstore": "corp", "issuer": ISSUER, "identity": GITHUB, "source_repository": f"{STRANGER}/"},
    ],
)
def test_a_signer_is_exactly_one_thing(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Signer(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"require": [{"group": "nobody", "count": 1}]},
        {"require": [{"group": "builder", "count": 2}]},
        {"index": "required"},
        {"require": []},
    ],
)
def test_a_rule_nobody_can_satisfy_is_refused_when_it_is_read(fields: dict[str, object]) -> None:
    rule = TWO.rules[0].model_dump(mode="json") | fields
    with pytest.raises(ValidationError):
        Rule.model_validate_json(json.dumps(rule))


def test_a_policy_that_names_a_missing_root_is_refused() -> None:
    with pytest.raises(ValidationError, match="no sigstore root is named other"):
        policy({"builder": [signer("bot", sigstore="other")]}, {"builder": 1})


def test_digest_of_nothing_is_known() -> None:
    assert digest_of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
