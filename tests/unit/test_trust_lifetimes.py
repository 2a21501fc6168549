"""Keys that end are named in time, and rules that nobody can meet any more are, too."""

from datetime import UTC, datetime, timedelta

import pytest

from policies.model.trust import Pinned, SignatureKind, TrustPolicy
from policies.trust.lifetimes import WARNED_BEFORE, ending, unmet

NOW = datetime(2026, 11, 30, tzinfo=UTC)
DAY = timedelta(days=1)


def policy(count: int = 1, **more: object) -> TrustPolicy:
    groups = {
        "lead": [{"openpgp": "ana", "person": "ana"}, {"openpgp": "ben", "person": "ben"}],
        "index": [{"cms": "corp", "identity": "ci@corp.example"}],
    }
    rule = {
        "product": "gw",
        "channel": "stable",
        "groups": groups,
        "require": [{"group": "lead", "count": count}],
        "index_group": "index",
    }
    pinned = {name: {"cert": f"{name}.asc", "fingerprint": "A" * 40} for name in ("ana", "ben", "unused")}
    cms = {"corp": {"roots": "corp.pem", "tsa": "tsa.pem"}}
    document = {"version": 1, "openpgp": pinned, "cms": cms, "rules": [rule | more]}
    return TrustPolicy.model_validate(document, strict=False)


def key(name: str, ends: datetime, kind: SignatureKind = SignatureKind.OPENPGP, **more: bool) -> Pinned:
    return Pinned(kind=kind, root=name, shown=name, ends=ends, **more)


def test_a_key_is_named_weeks_before_it_ends_and_ever_after() -> None:
    late = NOW + WARNED_BEFORE + DAY
    pinned = [key("ana", late), key("ben", NOW + WARNED_BEFORE), key("corp", NOW - DAY, SignatureKind.CMS)]
    assert [one.root for one in ending(policy(), pinned, NOW)] == ["corp", "ben"]
    assert timedelta(weeks=4) <= WARNED_BEFORE <= timedelta(weeks=12)


def test_a_key_that_nobody_of_any_group_signs_by_is_not_named() -> None:
    assert ending(policy(), [key("unused", NOW - DAY)], NOW) == ()


@pytest.mark.parametrize(("count", "unmet_rules"), [(1, 0), (2, 1)])
def test_a_rule_is_unmet_once_too_few_people_with_a_good_key_are_left(count: int, unmet_rules: int) -> None:
    pinned = [key("ana", NOW), key("ben", NOW + DAY)]
    assert len(unmet(policy(count), pinned, NOW)) == unmet_rules
    assert unmet(policy(count), pinned, NOW - DAY) == ()


def test_a_rule_is_unmet_once_nobody_can_sign_its_index() -> None:
    roots, stamps = (key("corp", NOW, SignatureKind.CMS, vouches=vouches) for vouches in (True, False))
    assert len(unmet(policy(), [roots], NOW)) == 1
    assert unmet(policy(index="none"), [roots], NOW) == ()
    assert unmet(policy(), [stamps], NOW) == (), "signatures without a stamp are good as long as their key"
