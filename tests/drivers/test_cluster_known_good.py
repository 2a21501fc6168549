"""The way back in a cluster by real verification: known-good is given to nodes, whatever has ended since."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from activities.drivers.runtime.kubernetes.api import Api, Call
from activities.drivers.runtime.kubernetes.cluster import KubernetesCluster
from activities.drivers.runtime.kubernetes.events import Events
from activities.drivers.runtime.kubernetes.lease import DriverLease
from activities.drivers.runtime.kubernetes.templates import Template
from activities.drivers.runtime.kubernetes.vouching import VouchedImages
from activities.drivers.runtime.kubernetes.words import FLEET, SLOT, Share
from activities.drivers.trust_files import compose_releases
from activities.placement import Prepared
from policies.model.operation import Operation
from policies.model.refusals import DowngradeRefused, Expired, SignerRevoked
from tests.drivers.test_release_image import Published
from tests.fakes.registry import FakeRegistry

QUARTER = timedelta(days=91)
"""A manifest lives for 90 days by default."""
SHARE = Share(
    fleet="edge",
    cluster="west",
    namespace="vpn",
    slots={"a": "edge-a", "b": "edge-b"},
    container="gateway",
    repository="registry.example/vpn/edge",
)


@dataclass
class Slots:
    """The API server of a cluster that has the slots of one fleet, and no node or pod but those counted."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    patience: float = 0.0

    def __post_init__(self) -> None:
        for slot, name in SHARE.slots.items():
            container = {"name": SHARE.container, "image": "registry.example/none"}
            self.sets[name] = {
                "metadata": {"name": name, "labels": {FLEET: SHARE.fleet, SLOT: slot}},
                "spec": {"template": {"metadata": {}, "spec": {"containers": [container]}}},
                "status": {"desiredNumberScheduled": 0},
            }

    def have(self, slot: str, nodes: int) -> None:
        """Have so many nodes be given the slot."""
        self.sets[SHARE.slots[slot]]["status"]["desiredNumberScheduled"] = nodes

    async def call(self, call: Call) -> Any:
        found = self.sets.get(call.path.rpartition("/")[2])
        if found is None:
            return {"items": self._given(call.query.get("labelSelector"))}
        if call.method == "PATCH":
            found["spec"] = cast("dict[str, Any]", call.body)["spec"]
        return found

    def _given(self, label: str | None) -> list[dict[str, Any]]:
        """Return the nodes with the label of a slot."""
        nodes = {
            SHARE.given(slot): self.sets[name]["status"]["desiredNumberScheduled"]
            for slot, name in SHARE.slots.items()
        }
        return [{"metadata": {"name": f"node-{one}"}} for one in range(nodes.get(label or "", 0))]

    async def listed(self, call: Call, read: Callable[[Any], Any]) -> list[Any]:
        """Return that there is no such node, and no pod."""
        return []

    async def lacking(self) -> tuple[str, ...]:
        return ()


class Idle:
    """A lease that this driver has, and events that nobody reads."""

    async def hold(self) -> None:
        return

    async def tell(self, template: Template, reason: str, said: str, *, wrong: bool = False) -> None:
        return


@dataclass
class Fleet:
    """A fleet in a cluster, whose driver keeps its folder when it is started anew."""

    published: Published
    slots: Slots = field(default_factory=Slots)

    async def prepare(
        self, digest: str, rollout: str, later: timedelta = timedelta(0), source: str | None = None
    ) -> Prepared:
        """Have a driver that was just started prepare the release, so much later."""
        release = self.published.manifest(digest).reference(digest)
        order = Operation(
            rollout=rollout, epoch=1, gateway=SHARE.cluster, step="prepare", digest="sha256:" + "0" * 64
        )
        return await self.driver(later).prepare(order, release, source or self.published.source)

    async def no_way_back(self, digest: str, later: timedelta = timedelta(0)) -> str:
        """Return why a driver that was just started would not prepare again what gateways go back to."""
        release = self.published.manifest(digest).reference(digest)
        [back, nobody] = await self.driver(later).look(
            {"gw-1": "node-1", "gw-2": "node-2"}, {"gw-1": release}, self.published.source
        )
        assert nobody.no_way_back == ""
        return back.no_way_back

    def driver(self, later: timedelta) -> KubernetesCluster:
        """Return a driver that was just started, so much later."""
        policy = self.published.lab.trust_policy
        releases = compose_releases(
            self.published.folder / "driver",
            policy,
            product="gw",
            channel="stable",
            clock=lambda: datetime.now(UTC) + later,
        )
        return KubernetesCluster(
            SHARE,
            cast("Api", self.slots),
            VouchedImages(releases),
            cast("DriverLease", Idle()),
            cast("Events", Idle()),
        )

    def change_policy(self, **changed: Any) -> None:
        """Change the first level of the trust policy, or its only rule where that has the name."""
        path = self.published.lab.trust_policy
        policy = json.loads(path.read_text())
        policy.update({name: value for name, value in changed.items() if name not in ("index", "floor")})
        policy["rules"][0] |= {"index": changed["index"]} if "index" in changed else {}
        policy["rules"][0] |= {"security_floor": changed["floor"]} if "floor" in changed else {}
        path.write_text(json.dumps(policy))


@contextmanager
def fleet(folder: Path) -> Iterator[Fleet]:
    with FakeRegistry() as registry:
        yield Fleet(Published(folder, registry.url))


async def served(one: Fleet, nodes: int) -> tuple[str, str]:
    """Have a release serve on nodes, of which so many are left; return it and its slot."""
    digest = one.published.publish()
    slot = (await one.prepare(digest, "edge-1")).slot
    one.slots.have(slot, nodes)
    return digest, slot


@pytest.mark.parametrize("nodes", [3, 0], ids=["others serve", "the only node lost its label"])
async def test_known_good_that_a_slot_holds_is_given_to_nodes_though_its_manifest_expired(
    tmp_path: Path, nodes: int
) -> None:
    with fleet(tmp_path) as one:
        digest, slot = await served(one, nodes)
        again = await one.prepare(digest, "edge-2", QUARTER, source="oci+http://127.0.0.1:1/away")
    assert (again.slot, again.changed) == (slot, False)


async def test_known_good_is_given_to_nodes_though_the_registry_and_its_credential_are_away(
    tmp_path: Path,
) -> None:
    """The check before an upgrade found a way back that then failed for a missing credential file."""
    with fleet(tmp_path) as one:
        digest, slot = await served(one, 3)
        sources = json.loads(one.published.lab.trust_policy.read_text())["sources"]
        one.change_policy(
            sources=sources | {"credentials": {sources["allow"][0]: f"file:{tmp_path / 'gone'}"}}
        )
        assert await one.no_way_back(digest) == ""
        again = await one.prepare(digest, "edge-2", source="oci+http://127.0.0.1:1/away")
    assert (again.slot, again.changed) == (slot, False)


@pytest.mark.sweep
async def test_known_good_is_given_back_to_nodes_after_another_release_took_its_slot_and_failed(
    tmp_path: Path,
) -> None:
    with fleet(tmp_path) as one:
        digest, slot = await served(one, 3)
        beside = await one.prepare(one.published.publish(2), "edge-2")
        one.slots.have(slot, 0)
        one.slots.have(beside.slot, 3)
        third = await one.prepare(one.published.publish(3), "edge-3")
        assert third.slot == slot
        again = await one.prepare(digest, "edge-4", QUARTER)
    assert (again.slot, again.changed) == (slot, True)


@pytest.mark.parametrize("by", ["revocation", "floor"])
async def test_a_revocation_and_the_security_floor_hold_known_good_up_that_a_slot_holds(
    tmp_path: Path, by: str
) -> None:
    with fleet(tmp_path) as one:
        digest, _ = await served(one, 3)
        if by == "floor":
            one.change_policy(floor=2)
        else:
            one.change_policy(revoked={"manifests": [digest.removeprefix("sha256:")]})
        with pytest.raises(DowngradeRefused if by == "floor" else SignerRevoked):
            await one.prepare(digest, "edge-2", QUARTER)


async def test_a_release_that_its_own_change_still_tries_is_judged_as_new(tmp_path: Path) -> None:
    with fleet(tmp_path) as one:
        one.change_policy(index="none")
        digest, _ = await served(one, 3)
        with pytest.raises(Expired):
            await one.prepare(digest, "edge-1", QUARTER)


@pytest.mark.sweep
async def test_a_slot_that_names_a_release_never_admitted_here_makes_it_no_known_good(tmp_path: Path) -> None:
    """The annotation may be anybody's: the driver's own record decides what it has admitted."""
    with fleet(tmp_path) as one:
        one.change_policy(index="none")
        digest, slot = await served(one, 3)
        refused = one.published.publish(2)
        with pytest.raises(Expired):
            await one.prepare(refused, "edge-2", QUARTER)
        named = one.slots.sets[SHARE.slots[slot]]["spec"]["template"]["metadata"]["annotations"]
        named.update({key: refused for key, value in named.items() if value == digest})
        with pytest.raises(Expired):
            await one.prepare(refused, "edge-2", QUARTER)


@pytest.mark.sweep
async def test_before_an_upgrade_a_cluster_says_that_it_would_not_prepare_again_what_serves(
    tmp_path: Path,
) -> None:
    """A node that lost its label, or an old slot that was taken back, found no way back only then."""
    with fleet(tmp_path) as one:
        digest, _ = await served(one, 3)
        assert await one.no_way_back(digest, QUARTER) == ""
        one.change_policy(revoked={"identities": [one.published.lab.manager[0]]})
        why = await one.no_way_back(digest, QUARTER)
        assert "would not be started again" in why
        assert "SignerRevoked" in why
        with pytest.raises(SignerRevoked):
            await one.prepare(digest, "edge-2", QUARTER)
        withdrawn = {"manifests": [digest.removeprefix("sha256:")]}
        one.change_policy(revoked={"identities": [one.published.lab.manager[0]], **withdrawn})
        assert await one.no_way_back(digest, QUARTER) == ""
