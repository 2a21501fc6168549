"""Which sessions of an ocserv had a tunnel: what occtl lists is the same for a login that was refused."""

from typing import Any

from activities.drivers.daemon.ocserv.tunnels import REMEMBERED, SETTLED, Past, Tunnels

HOME, OFFICE = "198.51.100.7", "198.51.100.8"


class Instance:
    """An ocserv as occtl shows it, and a clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.opened = list[dict[str, Any]]()
        self.users = list[dict[str, Any]]()
        self.tunnels = Tunnels(lambda: self.now)
        self.scan()

    def scan(self) -> Past:
        return self.tunnels.take("b", self.opened, self.users)

    def connects(self, session: str, worker: int, address: str = HOME, sent: int = 0) -> None:
        self.says_goodbye(session)
        self.opened.append({"Session": session, "Remote IP": address, "in_use": 1})
        self.users.append({"Session": session, "Remote IP": address, "ID": worker, "RX": str(sent)})

    def breaks(self, session: str, address: str = HOME) -> None:
        self.users = [one for one in self.users if one["Session"] != session]
        self.opened = [one for one in self.opened if one["Session"] != session]
        self.opened.append({"Session": session, "Remote IP": address, "in_use": 0})

    def says_goodbye(self, session: str) -> None:
        self.users = [one for one in self.users if one["Session"] != session]
        self.opened = [one for one in self.opened if one["Session"] != session]


def lasting(instance: Instance) -> Past:
    instance.scan()
    instance.now += SETTLED.total_seconds()
    return instance.scan()


def test_a_login_that_was_refused_after_its_password_is_no_session_whose_connection_broke() -> None:
    """newcomer 2: ocserv lists both open, authenticated and not in use."""
    instance = Instance()
    instance.breaks("refused")
    assert (instance.scan().worked, list(instance.scan().failed)) == (frozenset(), [HOME])


def test_a_session_whose_connection_broke_can_be_resumed_for_as_long_as_ocserv_lists_it() -> None:
    instance = Instance()
    instance.connects("works", 1)
    assert lasting(instance).worked == {"works"}
    instance.breaks("works")
    instance.now += 299
    assert instance.scan() == Past(frozenset({"works"}), {})
    instance.connects("works", 2)
    assert instance.scan().worked == {"works"}


def test_a_session_that_has_just_begun_counts_from_its_first_packet_on() -> None:
    instance = Instance()
    instance.connects("silent", 1)
    instance.connects("speaks", 2, OFFICE, sent=84)
    assert instance.scan() == Past(frozenset({"speaks"}), {})
    assert lasting(instance).worked == {"silent", "speaks"}


def test_a_session_whose_workers_die_one_after_the_other_never_counts() -> None:
    instance = Instance()
    for worker in range(1, 4):
        instance.connects("loop", worker)
        assert instance.scan().worked == set()
        instance.now += 1
    instance.breaks("loop")
    assert (instance.scan().worked, list(instance.scan().failed)) == (frozenset(), [HOME])


def test_a_user_who_said_goodbye_to_a_tunnel_without_a_packet_was_refused() -> None:
    instance = Instance()
    instance.connects("gives up", 1)
    instance.connects("leaves", 2, OFFICE, sent=84)
    assert instance.scan().failed == {}
    instance.says_goodbye("gives up")
    instance.says_goodbye("leaves")
    assert list(instance.scan().failed) == [HOME]


def test_a_session_that_carried_traffic_comes_back_once_also_right_after_its_login() -> None:
    instance = Instance()
    instance.connects("young", 1, sent=84)
    assert instance.scan().worked == {"young"}
    instance.breaks("young")
    assert instance.scan().worked == instance.scan().worked == {"young"}
    instance.connects("young", 2)
    assert instance.scan().worked == {"young"}
    instance.connects("young", 3, sent=84)
    assert (instance.scan().worked, list(instance.scan().failed)) == (frozenset(), [HOME])
    assert lasting(instance).worked == {"young"}


def test_a_version_that_does_not_count_packets_has_its_sessions_come_back() -> None:
    instance = Instance()
    instance.connects("uncounted", 1)
    del instance.users[0]["RX"]
    instance.scan()
    instance.breaks("uncounted")
    assert instance.scan().worked == {"uncounted"}


def test_a_refused_user_who_said_goodbye_is_remembered_for_a_while() -> None:
    instance = Instance()
    instance.breaks("refused")
    instance.scan()
    instance.says_goodbye("refused")
    assert list(instance.scan().failed) == [HOME]
    instance.now += REMEMBERED.total_seconds()
    assert instance.scan().failed == {}


def test_a_tunnel_that_is_being_made_has_neither_worked_nor_failed() -> None:
    instance = Instance()
    instance.opened = [{"Session": "begins", "Remote IP": HOME, "in_use": 1}]
    assert instance.scan() == Past(frozenset(), {})
    instance.connects("begins", 1, sent=84)
    assert instance.scan() == Past(frozenset({"begins"}), {})


def test_an_agent_that_has_just_started_lets_every_session_of_before_be_resumed() -> None:
    instance = Instance()
    instance.tunnels = Tunnels(lambda: instance.now)
    instance.breaks("before")
    instance.connects("connected", 1)
    assert instance.scan().worked == {"before", "connected"}
    instance.breaks("connected")
    assert instance.scan().worked == {"before", "connected"}


def test_an_agent_that_has_made_the_instance_knows_all_of_its_past() -> None:
    instance = Instance()
    instance.breaks("refused")
    instance.scan()
    instance.tunnels.begin("b")
    assert instance.scan().worked == frozenset()
    late = Tunnels(lambda: instance.now)
    late.begin("b")
    assert (late.take("b", instance.opened, []).worked) == frozenset()
