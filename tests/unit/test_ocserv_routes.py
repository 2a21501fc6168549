"""Which routes an ocserv.conf has clients send into the tunnel, read as ocserv reads them."""

import pytest

from activities.drivers.daemon.held import Held
from activities.drivers.daemon.inspection import routes
from activities.drivers.daemon.ocserv.inspection import routes_in
from policies.model.errors import BadInput


@pytest.mark.parametrize(
    ("config", "networks"),
    [
        ("route = 10.0.0.0/8\nroute = 192.168.0.0/255.255.0.0", {"10.0.0.0/8", "192.168.0.0/16"}),
        ('route = "10.0.0.0/8"', {"10.0.0.0/8"}),
        ("route = 10.0.0.0/8 # the office", {"10.0.0.0/8"}),
        ("route: 10.0.0.0/8", {"10.0.0.0/8"}),
        ("\ufeffroute = fd00::/8", {"fd00::/8"}),
        ("; route = 10.1.0.0/16\n# route = 10.2.0.0/16", set[str]()),
        ('route = 10.0.0.0/8\nroute = "default"', set[str]()),
        ("route = default # all", set[str]()),
        ("route = 10.0.0.0/8\n[www.example.com]\nroute = 172.16.0.0/12", {"10.0.0.0/8"}),
        ("route =", set[str]()),
    ],
)
def test_routes_are_read_as_ocserv_reads_them(config: str, networks: set[str]) -> None:
    """R11, a fresh reader's F4."""
    assert routes_in(config) == networks


def test_a_route_that_is_none_is_refused_and_no_foreign_error_escapes() -> None:
    """R11, a fresh reader's F4."""
    with pytest.raises(BadInput, match="none: 'office'"):
        routes_in("route = office")


def test_a_pushed_route_that_is_no_network_differs_by_its_name() -> None:
    """Such a route was a ValueError, which ended every test of the instance."""
    found = routes({"10.0.0.0/8"}, [Held(let_in=True, routes={"10.0.0.0/255.0.0.0", "vpn.example"})])
    assert found.measured == 1
    assert "these differ: vpn.example" in found.said
    assert "no network: vpn.example" in found.said
