"""One control plane for the tests of the driver, with the chart's slots, rights and policies in force."""

from collections.abc import Callable, Iterator
from itertools import count

import pytest

from deploy.cluster.api import MERGE, Answered, Api, make_nodes
from deploy.cluster.control_plane import Choices, ControlPlane, running
from deploy.cluster.faults import Proxy
from deploy.cluster.identities import Person
from tests.cluster import building
from tests.cluster.driver.driving import BORNE, SHARE, installed, reset

NAMED = Person("named", "ana", ("system:masters", "penstock:administrators"))
"""Who may change everything, also against the chart's policies."""
STRANGER = Person("stranger", "somebody", ("system:masters",))
Nodes = Callable[[int], list[str]]
"""Makes so many nodes of the fleet, and returns their names."""
_number = count(1)


@pytest.fixture(scope="package")
def driven(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ControlPlane]:
    """Give the control plane that all tests of the driver share."""
    building.insist(request)
    choices = Choices(people=(NAMED, STRANGER))
    with running(tmp_path_factory.mktemp("driven"), choices) as plane:
        for manifest in installed():
            plane.admin.apply(manifest, manager="installer")
        make_nodes(plane.admin, ["first"])
        plane.admin.until("/api/v1/nodes/first", lambda _: _is_guarded(plane.api("stranger")))
        yield plane


@pytest.fixture
def admin(driven: ControlPlane) -> Iterator[Api]:
    """Give an administrator whom the chart's policies let do everything, in a cluster that is as new."""
    api = driven.api("named")
    reset(api)
    yield api
    api.close()


@pytest.fixture
def nodes(admin: Api) -> Nodes:
    """Give what makes so many nodes of the fleet, Ready and open."""

    def make(many: int) -> list[str]:
        first = next(_number)
        names = [f"gw-{first}-{one}" for one in range(1, many + 1)]
        make_nodes(admin, names, labels={BORNE: "true"})
        return names

    return make


@pytest.fixture
def proxy(driven: ControlPlane) -> Iterator[Proxy]:
    """Give a proxy before the API server, which passes everything on until it is told otherwise."""
    known = driven.identities
    with Proxy(driven.server, known.authority, known.server) as listening:
        yield listening


def _is_guarded(stranger: Api) -> bool:
    """Whether the policies are in force: the API server begins with them a moment after they are there."""
    body = {"metadata": {"labels": {SHARE.given("a"): "true"}}}
    try:
        stranger.ask("PATCH", "/api/v1/nodes/first", body, content=MERGE, dryRun="All")
    except Answered:
        return True
    finally:
        stranger.close()
    return False
