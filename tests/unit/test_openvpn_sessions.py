"""Who is connected to an OpenVPN, by what `status 3` said of a real one (2.6.14)."""

from datetime import UTC, datetime
from ipaddress import ip_address

import pytest

from activities.drivers.daemon.openvpn.sessions import clients_in

HEADER = (
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\t"
    "Bytes Sent\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher"
)
TITLE = ("TITLE\tOpenVPN 2.6.14", "TIME\t2026-11-26 12:16:47\t1795695407")
LAST = ("HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name", "GLOBAL_STATS\tdco_enabled\t0")
ASKED = (
    "CLIENT_LIST\tUNDEF\t10.77.0.2:40432\t\t\t303\t1267\t2026-11-26 12:16:45\t1795695405\tUNDEF\t1\t1\tBF-CBC"
)


def client(name: str, real: str, virtual: str, number: int = 7) -> str:
    since = "2026-11-26 12:16:45\t1795695405"
    return f"CLIENT_LIST\t{name}\t{real}\t{virtual}\t\t3\t4\t{since}\tUNDEF\t{number}\t0\tAES-256-GCM"


def test_a_client_that_was_let_in_is_a_session_with_its_address_port_and_time() -> None:
    (row,) = clients_in([*TITLE, HEADER, client("alice", "10.77.0.11:40432", "10.90.0.2"), *LAST])
    assert (row.id, row.name, row.vpn_address) == ("7", "alice", "10.90.0.2")
    assert (row.address, row.port) == (ip_address("10.77.0.11"), 40432)
    assert row.since == datetime.fromtimestamp(1795695405, UTC)


def test_a_user_without_a_certificate_is_a_session_with_the_name_that_was_typed() -> None:
    """Case 19: `verify-client-cert none`; OpenVPN calls each of these clients UNDEF while it lives."""
    since = "2026-11-28 22:35:28\t1795905328"
    row = f"CLIENT_LIST\tUNDEF\t127.0.0.1:52752\t10.9.0.2\t\t1117\t2899\t{since}\tana\t0\t0\tAES-256-GCM"
    unnamed = row.replace("ana", "UNDEF").replace("10.9.0.2", "10.9.0.3")
    found = clients_in([*TITLE, HEADER, row, unnamed, ASKED, *LAST])
    assert [(one.name, one.vpn_address) for one in found] == [("ana", "10.9.0.2"), ("UNDEF", "10.9.0.3")]


def test_an_openvpn_2_4_which_has_no_column_of_ciphers_is_read() -> None:
    """Case 22's version: its list of clients ends with the peer's number."""
    header = HEADER.removesuffix("\tData Channel Cipher")
    row = client("alice", "10.77.0.11:40432", "10.90.0.2").removesuffix("\tAES-256-GCM")
    assert [one.name for one in clients_in([*TITLE, header, row, *LAST])] == ["alice"]


def test_a_client_that_has_no_address_yet_is_none() -> None:
    waits = client("alice", "10.77.0.11:40432", "")
    assert clients_in([*TITLE, HEADER, ASKED, waits, *LAST]) == ()


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("fd77::11:40432", "fd77::11"),
        ("[fd77::11]:40432", "fd77::11"),
        ("::ffff:10.77.0.11:40432", "10.77.0.11"),
    ],
)
def test_an_ipv6_address_is_told_from_its_port_and_a_mapped_one_is_ipv4(said: str, address: str) -> None:
    (row,) = clients_in([*TITLE, HEADER, client("alice", said, "10.90.0.2"), *LAST])
    assert (row.address, row.port) == (ip_address(address), 40432)


def test_columns_are_found_by_the_header_and_not_by_their_place() -> None:
    other = HEADER.replace("\tBytes Received\tBytes Sent", "")
    row = client("alice", "10.77.0.11:40432", "10.90.0.2").replace("\t3\t4\t", "\t", 1)
    assert clients_in([*TITLE, other, row, *LAST])[0].id == "7"


@pytest.mark.parametrize(
    "said", [[], ["ERROR: unknown command"], [client("alice", "10.77.0.11:1", "10.90.0.2")]]
)
def test_what_is_no_list_of_clients_is_not_taken_for_an_empty_one(said: list[str]) -> None:
    with pytest.raises(ValueError, match="client"):
        clients_in(said)
