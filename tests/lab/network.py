"""A small lab network for tests of one part, with a prefix of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.lab import preflight
from deploy.lab.topology import Claim, Topology
from policies.model.errors import BadInput


@contextmanager
def network(prefix: str, *, gateways: int = 1, sites: int = 1) -> Iterator[Topology]:
    """Build it and remove it again; skip the test where this machine cannot have a lab, and say why."""
    try:
        preflight.examine()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))
    topology = Topology(gateways=gateways, sites=sites, prefix=prefix)
    with Claim(prefix):
        topology.build()
        try:
            yield topology
        finally:
            topology.tear_down()
