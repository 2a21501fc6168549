"""One control plane for all tests here, and what each of them has for itself: a namespace, nodes, a proxy."""

from collections.abc import Callable, Generator, Iterator
from itertools import count

import pytest

from deploy.cluster.api import Api, make_nodes, remove_nodes
from deploy.cluster.control_plane import Choices, ControlPlane, running
from deploy.cluster.faults import Proxy
from deploy.cluster.identities import Person
from tests.cluster import building

DRIVER, STRANGER = Person("driver", "penstock-driver"), Person("stranger", "stranger")
"""Nobody's rights until a test gives them some."""
_number = count(1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --all, leave out what needs programs that are not built here."""
    if not config.getoption("--all"):
        building.leave_out(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """With --all, wait for programs that are being built; a test's own time does not run yet."""
    if item.config.getoption("--all"):
        building.await_for(item)
    return (yield)


@pytest.fixture(scope="package")
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Give the control plane that all tests here share; who breaks it mends it."""
    building.insist(request)
    folder = tmp_path_factory.mktemp("control-plane")
    with running(folder, Choices(people=(DRIVER, STRANGER))) as started:
        yield started


@pytest.fixture
def admin(plane: ControlPlane) -> Api:
    """Give a client that may do everything."""
    return plane.admin


@pytest.fixture
def space(admin: Api) -> Iterator[str]:
    """Give a namespace that is empty, and whose pods are gone after the test."""
    name = f"space-{next(_number)}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    admin.until(f"/api/v1/namespaces/{name}/serviceaccounts/default", lambda found: found)
    yield name
    admin.delete(f"/api/v1/namespaces/{name}")
    pods = admin.every(f"/api/v1/namespaces/{name}/pods")
    _remove(admin, pods)


@pytest.fixture
def nodes(admin: Api) -> Iterator[Callable[..., list[str]]]:
    """Give what makes so many nodes, Ready and open; they are gone after the test."""
    made: list[str] = []

    def make(many: int, **labels: str) -> list[str]:
        first = next(_number)
        names = [f"node-{first}-{one}" for one in range(1, many + 1)]
        made.extend(names)
        make_nodes(admin, names, labels=labels)
        return names

    yield make
    on_them = [pod for pod in admin.every("/api/v1/pods") if pod["spec"].get("nodeName") in made]
    _remove(admin, on_them)
    remove_nodes(admin, made)


@pytest.fixture
def proxy(plane: ControlPlane) -> Iterator[Proxy]:
    """Give a proxy before the API, which passes everything on until it is told otherwise."""
    known = plane.identities
    with Proxy(plane.server, known.authority, known.server) as listening:
        yield listening


@pytest.fixture
def through(plane: ControlPlane, proxy: Proxy) -> Iterator[Api]:
    """Give a client with all rights behind the proxy."""
    client = Api(
        proxy.url, plane.identities.authority, plane.identities.token("admin"), agent="behind-the-proxy"
    )
    yield client
    client.close()


def _remove(admin: Api, pods: list[dict[str, dict[str, str]]]) -> None:
    paths = [
        f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}" for pod in pods
    ]
    admin.each(lambda path: admin.delete(path, gracePeriodSeconds=0), paths)
