"""What a daemon that serves by itself would share with the slots beside it, and which ones would not."""

from ipaddress import ip_network

import pytest

from policies.adoption import apart, derived_slots, is_adopted, more_pools_in_use, obstacles_to, release_of
from policies.model.adoption import ADOPTED, FoundDaemon, FreeSlot
from policies.model.fleet import Slot
from policies.model.value import digest_of
from policies.pools import Route
from tests.unit.fleets import OLD, gateway

EDGE = gateway("edge-1")


def daemon(**more: object) -> Slot:
    said = {"name": ADOPTED, "port": 443, "device": "vpns", "pool4": "192.168.1.0/24", "pool6": "fd00:1::/64"}
    return Slot.model_validate(said | more)


def test_a_daemon_that_shares_nothing_has_nothing_in_its_way() -> None:
    assert obstacles_to(daemon(), EDGE) == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"port": 8443}, "it serves port 8443, and the users of edge-1 dial 443"),
        ({"device": "pa"}, "its devices are called pa, those of slot a of edge-1 pa"),
        ({"device": "p"}, "those of slot a of edge-1 pa"),
        ({"pool4": str(EDGE.slots[0].pool4.supernet())}, f"overlaps {EDGE.slots[0].pool4} of slot a"),
    ],
)
def test_what_it_shares_with_a_slot_is_named(more: dict[str, object], said: str) -> None:
    assert said in obstacles_to(daemon(**more), EDGE)[0]


def test_a_slot_with_the_pool_of_some_of_its_users_is_in_its_way() -> None:
    """A group's own pool: two users of two instances would get one address while the daemon drains."""
    slot = EDGE.slots[0]
    (said,) = more_pools_in_use([ip_network("10.90.77.0/30"), slot.pool4], EDGE)
    assert said.startswith(
        f"some of its users get addresses of {slot.pool4}, by a file or section of their own"
    )
    assert f"overlaps {slot.pool4} of slot {slot.name} of edge-1; give the slot another pool" in said


def test_slots_beside_it_have_pools_of_its_size_that_nobody_uses() -> None:
    used = [Route(network=ip_network("192.168.2.128/25"), device="eth1")]
    slots = derived_slots(daemon(), used)
    assert [str(slot.pool4) for slot in slots] == ["192.168.3.0/24", "192.168.4.0/24"]
    assert [str(slot.pool6) for slot in slots] == ["fd00:1:0:1::/64", "fd00:1:0:2::/64"]
    assert all(not slot.device.startswith("vpns") for slot in slots)


def test_at_the_end_of_all_addresses_no_slot_is_made_up() -> None:
    assert derived_slots(daemon(pool4="255.255.255.0/24", pool6=None), ()) == ()


def found(name: str, own: Slot) -> FoundDaemon:
    """Return what a host answers that knows of no other gateway."""
    free = [
        FreeSlot(
            name=one.name, port=one.port, device=one.device, pool4=str(one.pool4), pool6=str(one.pool6 or "")
        )
        for one in derived_slots(own, ())
    ]
    return FoundDaemon(gateway=name, pools=own.pools, slots=tuple(free))


def test_no_slot_is_proposed_in_the_pool_of_another_gateway_or_of_its_proposal() -> None:
    """newcomer 14: gateways with pools side by side were each offered the next one's."""
    hosts = [
        found(f"edge-{number}", daemon(pool4=f"10.60.{number}.0/24", pool6=None)) for number in range(1, 4)
    ]
    pools = [slot.pool4 for one in apart(hosts, [ip_network("10.60.4.0/24")]) for slot in one.slots]
    assert pools == [f"10.60.{number}.0/24" for number in range(5, 11)]


def test_what_was_adopted_is_told_from_every_signed_release() -> None:
    found = release_of("ocserv", "1.1.6", digest_of(b"bytes"))
    assert is_adopted(found)
    assert not is_adopted(OLD)
    assert found != release_of("ocserv", "1.1.6", digest_of(b"other bytes"))
