"""The driver needs nine verbs, no more, and names the one that it lacks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from activities.drivers.runtime.kubernetes.rights import NINE, Right
from deploy.cluster.api import Api
from deploy.cluster.audit import counted
from deploy.cluster.control_plane import ControlPlane
from deploy.cluster.faults import Fault, Proxy
from deploy.kubernetes.chart import NAMESPACE
from policies.model.errors import NotAllowed
from tests.cluster.driver.conftest import Nodes
from tests.cluster.driver.driving import ACCOUNT, AGENT, driver, image, order
from tests.patience import wait_until

RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE = f"{RBAC}/namespaces/{NAMESPACE}/roles/{ACCOUNT}"
CLUSTER_ROLE = f"{RBAC}/clusterroles/penstock-cluster"


@contextmanager
def without(admin: Api, right: Right) -> Iterator[None]:
    """Take one verb from the driver's roles while the block lasts."""
    path = CLUSTER_ROLE if right.kind == "nodes" else ROLE
    before: Any = admin.get(path)["rules"]
    after = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb != right.verb]}
        if right.kind in rule["resources"]
        else rule
        for rule in before
    ]
    admin.merge(path, {"rules": [rule for rule in after if rule["verbs"]]})
    try:
        until_counted(admin, right, there=False)
        yield
    finally:
        admin.merge(path, {"rules": before})
        until_counted(admin, right, there=True)


def until_counted(admin: Api, right: Right, *, there: bool) -> None:
    """Return when the API server goes by the role as it is: it hears of a change a moment later."""
    about = {"verb": right.verb, "resource": right.kind, "group": right.group, "namespace": NAMESPACE}
    about |= {"name": "edge-a"} if right.kind == "daemonsets" else {}
    about |= {"name": "penstock-edge"} if right.kind == "leases" and right.verb != "create" else {}
    spec = {"user": f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}", "resourceAttributes": about}
    asked = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    wait_until(lambda: admin.post(path, asked)["status"]["allowed"] is there)


@pytest.mark.parametrize("right", NINE, ids=str)
async def test_a_verb_that_is_taken_away_is_named_before_anything_is_changed(
    right: Right, driven: ControlPlane, admin: Api
) -> None:
    one = driver(driven, patience=1.5)
    if right.verb == "get" and right.kind == "daemonsets":
        said = "the cluster does not let us get daemonsets.apps edge-a: .*; its role leaves that out"
    else:
        said = f"does not let edge's driver {right}"
    with without(admin, right), pytest.raises(NotAllowed, match=said):
        await one.prepare(1)
    assert await one.prepare(1) == "a"


async def test_a_verb_that_is_taken_away_in_the_middle_is_named_where_it_is_needed(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    (node,), one = nodes(1), driver(driven, patience=1.5)
    slot = await one.prepare(1)
    for right in (Right("patch", "nodes"), Right("list", "nodes"), Right("list", "pods")):
        with without(admin, right), pytest.raises(NotAllowed, match=f"does not let us {right}"):
            await one.cluster.place(order("gw"), node, slot, image(1))
    assert (await one.cluster.place(order("gw"), node, slot, image(1))).instance


async def test_a_whole_change_uses_the_nine_verbs_and_no_other(
    driven: ControlPlane, admin: Api, nodes: Nodes
) -> None:
    begun = driven.audit.position()
    (node,), one = nodes(1), driver(driven)
    slot = await one.prepare(1)
    placed = await one.cluster.place(order("gw"), node, slot, image(1))
    await one.cluster.remove(order("gw"), node, slot, placed.instance)
    await one.cluster.look({"gw": node})
    await one.lease.let_go()
    made = [request for request in driven.audit.since(begun) if request.agent == AGENT]
    asked = {f"{verb} {resource}" for verb, resource in counted(made)}
    assert asked - {"create selfsubjectrulesreviews"} == {f"{right.verb} {right.kind}" for right in NINE}
    assert {request.status for request in made} <= {200, 201, 404}


async def test_a_refusal_of_a_server_that_has_just_started_is_not_the_end(
    driven: ControlPlane, admin: Api, proxy: Proxy
) -> None:
    rule = proxy.inject(Fault.FORBIDDEN, times=5)
    one = driver(driven, server=proxy.url)
    assert await one.prepare(1) == "a"
    assert len(rule.struck) == 5


async def test_what_is_missing_is_listed_at_once_for_who_asks(driven: ControlPlane, admin: Api) -> None:
    one = driver(driven)
    assert await one.cluster.lacking() == ()
    with without(admin, NINE[1]), without(admin, NINE[8]):
        assert await one.cluster.lacking() == ("patch nodes", "update leases.coordination.k8s.io")
