"""Which networks a client of OpenVPN sends into the tunnel, by the options that were pushed to it."""

import pytest

from activities.drivers.daemon.openvpn.session import routes_in


@pytest.mark.parametrize(
    ("pushed", "networks"),
    [
        ("route 10.1.0.0 255.255.0.0", {"10.1.0.0/16"}),
        ("route 10.1.0.7", {"10.1.0.7/32"}),
        ("route 10.1.0.0 255.255.0.0 vpn_gateway 50", {"10.1.0.0/16"}),
        ("route-ipv6 fd00::/64", {"fd00::/64"}),
        ("redirect-gateway def1", {"0.0.0.0/0"}),
        ("route vpn.example 255.255.255.255", {"vpn.example"}),
        ("route vpn.example", {"vpn.example"}),
        ("route 10.2.0.0 default", {"10.2.0.0/default"}),
        ("route-ipv6 vpn.example", {"vpn.example"}),
        ("route 192.0.2.7 255.255.255.255 net_gateway", set[str]()),
        ("route remote_host 255.255.255.255 net_gateway", set[str]()),
        ("route", set[str]()),
        ("ping 10", set[str]()),
    ],
)
def test_routes_are_those_that_a_client_takes_and_names_stay_names(pushed: str, networks: set[str]) -> None:
    """R11: a route to a host name was left out in silence, on both sides of the comparison."""
    assert routes_in([pushed]) == networks
