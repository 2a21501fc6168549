"""Which rollbacks a second person confirms; known-good by itself is never among them."""

from datetime import UTC, datetime, timedelta

from policies.rollbacks import confirmation_of, within_kept
from policies.words.fleet import AtDeadline, RollbackRules
from policies.words.way_back import Confirmation
from tests.unit.fleets import NEW, OLD, fleet, gateway

FLEET = fleet(*(gateway(f"gw-{number}") for number in (1, 2, 3, 4)))
ALL = [gateway.name for gateway in FLEET.gateways]


def confirmation(to: object = OLD, names: list[str] = ALL, **rules: object) -> Confirmation | None:
    ruled = FLEET.model_copy(update={"rollback": RollbackRules.model_validate(rules)})
    targets = dict.fromkeys(names, to)
    return confirmation_of(ruled, targets, dict.fromkeys(ALL, NEW), dict.fromkeys(ALL, OLD))  # type: ignore[arg-type]


def test_the_known_good_before_the_last_promotion_needs_nobody() -> None:
    assert confirmation(OLD) is None
    assert confirmation(NEW) is None


def test_another_release_needs_a_second_person_unless_the_policy_says_otherwise() -> None:
    other = OLD.model_copy(update={"digest": "sha256:" + "9" * 64, "version": "0.9"})
    asked = confirmation(other)
    assert asked is not None
    assert asked.reason.startswith("0.9 is not the known-good of")
    assert asked.known_good == dict.fromkeys(ALL, OLD)
    assert confirmation(other, confirm_other_release=False) is None
    nothing = confirmation(other, at_deadline=AtDeadline.NOTHING)
    assert nothing is not None
    assert nothing.known_good == {}


def test_a_whole_group_needs_a_second_person_where_the_policy_says_so() -> None:
    asked = confirmation(OLD, confirm_whole_group=True)
    assert asked is not None
    assert "every gateway of main goes back at once" in asked.reason
    assert confirmation(OLD, ALL[:-1], confirm_whole_group=True) is None


def test_an_answer_binds_to_exactly_what_was_asked() -> None:
    one = confirmation(OLD, ALL, confirm_whole_group=True)
    other = confirmation(NEW, ALL, confirm_whole_group=True)
    assert one is not None
    assert other is not None
    assert one.change != other.change


def test_the_kept_window_ends_for_each_gateway_by_its_own_promotion() -> None:
    now = datetime(2026, 11, 20, tzinfo=UTC)
    since = {"gw-1": now - timedelta(hours=23), "gw-2": now - timedelta(hours=25)}
    assert within_kept(FLEET, since, now) == {"gw-1"}
