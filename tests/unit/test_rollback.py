"""Which rollbacks a second person confirms; known-good by itself is never among them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from policies.model.change import WayBack
from policies.model.errors import Refused
from policies.model.fleet import RollbackRules
from policies.model.plan import ReleaseRef
from policies.rollback import confirmation_of, stands, targets_of
from tests.unit.fleets import NEW, OLD, fleet, gateway

AT = datetime(2030, 1, 2, tzinfo=UTC)
FLEET = fleet(*(gateway(f"gw-{number}") for number in (1, 2, 3, 4)))
ALL = [gateway.name for gateway in FLEET.gateways]
OTHER = OLD.model_copy(update={"digest": "sha256:" + "9" * 64, "version": "0.9"})


def confirmation(to: ReleaseRef = OLD, names: Sequence[str] = ALL, **rules: object) -> str | None:
    ruled = FLEET.model_copy(update={"rollback": RollbackRules.model_validate(rules)})
    targets = dict.fromkeys(names, to)
    return confirmation_of(ruled, targets, dict.fromkeys(ALL, NEW), dict.fromkeys(ALL, OLD))


def test_the_known_good_before_the_last_promotion_needs_nobody() -> None:
    assert confirmation(OLD) is None
    assert confirmation(NEW) is None


def test_another_release_needs_a_second_person_unless_the_policy_says_otherwise() -> None:
    asked = confirmation(OTHER)
    assert asked is not None
    assert asked.startswith("0.9 is not the known-good of")
    assert confirmation(OTHER, confirm_other_release=False) is None


def test_a_whole_group_needs_a_second_person_where_the_policy_says_so() -> None:
    asked = confirmation(OLD, confirm_whole_group=True)
    assert asked is not None
    assert "every gateway of main goes back at once" in asked
    assert confirmation(OLD, ALL[:-1], confirm_whole_group=True) is None


@pytest.mark.parametrize(
    ("finished", "hours", "names_a_release"), [(True, 25, True), (True, 23, False), (False, 25, False)]
)
def test_only_a_promotion_stands_after_its_kept_window_what_did_not_end_well_is_taken_back_at_any_time(
    *, finished: bool, hours: int, names_a_release: bool
) -> None:
    last = WayBack(change="edge-1", finished=finished, since=AT - timedelta(hours=hours), sentence="")
    assert stands(last, timedelta(hours=24), AT) is names_a_release


def test_only_gateways_on_which_it_was_known_good_go_back_to_a_release() -> None:
    proven = {"gw-1": (NEW, OLD), "gw-2": (NEW, OLD), "gw-3": (NEW,)}
    on = {"gw-1": NEW, "gw-2": OLD, "gw-3": NEW}
    assert targets_of(OLD, proven, on) == {"gw-1": OLD}
    with pytest.raises(Refused, match="never known-good here"):
        targets_of(OTHER, proven, on)
