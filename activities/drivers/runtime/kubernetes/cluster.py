"""One fleet's slots in one Kubernetes cluster: prepared by a template, given and taken by a node's label.

Nothing is remembered but what the API server holds. Every write names the version that it changes, so a
driver that was killed between any two calls, or runs twice, leaves nothing half done: what has changed is
read again and judged again. No pod is ever written or deleted: the DaemonSets' controller does that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Protocol

from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.kubernetes.answers import Absent, Stale, Unread
from activities.drivers.runtime.kubernetes.api import Api
from activities.drivers.runtime.kubernetes.events import Events
from activities.drivers.runtime.kubernetes.expected import Expected
from activities.drivers.runtime.kubernetes.lease import DriverLease
from activities.drivers.runtime.kubernetes.looks import look_of
from activities.drivers.runtime.kubernetes.nodes import Extent, Node, anybody_given, give, read_nodes, take
from activities.drivers.runtime.kubernetes.pods import Pod, any_pods, read_pods
from activities.drivers.runtime.kubernetes.templates import Template, apply, read_template
from activities.drivers.runtime.kubernetes.together import Together
from activities.drivers.runtime.kubernetes.words import IMAGE, Share
from activities.placement import Prepared, Removed
from policies.model.errors import BadInput, Fenced, NotAllowed, Refused, Unavailable
from policies.model.operation import Operation
from policies.model.placement import NodeLook, Placed
from policies.model.plan import ReleaseRef
from policies.model.value import Digest

UP_WITHIN = timedelta(seconds=90)
"""How long an instance may take: after an API server's restart controllers begin again late."""
GONE_WITHIN = timedelta(seconds=60)
"""How long the end of an instance is waited for at a time; one with users may take as long as they stay."""
TRIES = 8
"""How often a write is begun again because somebody else was faster."""
FRESH = 20.0
"""Seconds for which a node counts as it was written: what has changed since is told by the next write."""
GATHER = 0.1
"""Seconds in which those who ask for the same come together."""
UNSETTLED = "is counted by the cluster, and no node has it"
SEEN_AFTER = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2)
"""Seconds between looks whether a controller has taken up a slot's new image, as it does within the first."""
POLL = 0.3
"""Seconds between lists of pods at least, while somebody waits for one."""
EACH = 0.002
"""Seconds more for each who waits."""
COUNTED_FOR = 3.0
"""Seconds until a list at most while something is not counted as ready: the list says why."""
SELDOM = 4
"""So many times rarer are lists for those who wait for an end: nobody's sessions wait for that."""


class Vouches(Protocol):
    """Says which image a release is, after verifying it."""

    async def image_of(self, release: ReleaseRef, source: str) -> Digest:
        """Return the digest of the release's image; TrustError where it may not run here."""
        ...

    async def no_way_back(self, release: ReleaseRef, source: str) -> str:
        """Return why no slot would be given the known-good release again; empty where one would."""
        ...

    def keep(self, release: Digest) -> None:
        """Have the release be known-good where it was verified here before: some gateway goes back to it."""
        ...


class KubernetesCluster:
    """The cluster as workflows know it; see `activities.placement.Cluster` for what each step promises."""

    def __init__(
        self,
        share: Share,
        api: Api,
        vouches: Vouches,
        lease: DriverLease,
        events: Events,
        *,
        up_within: timedelta = UP_WITHIN,
        gone_within: timedelta = GONE_WITHIN,
        poll: float = POLL,
    ) -> None:
        """Act for one fleet; `poll` is in seconds."""
        self._share = share
        self._api = api
        self._vouches = vouches
        self._lease = lease
        self._events = events
        self._up_within = up_within.total_seconds()
        self._gone_within = gone_within.total_seconds()
        self._placing: Counter[str] = Counter()
        self._changing = asyncio.Lock()
        self._last = ""
        self._written: dict[str, tuple[Node, float]] = {}
        self._comes, self._goes = Expected(), Expected()
        self._taken: set[str] = set()
        self._extent = Extent()
        self._nodes = Together(self._read_nodes, gather=GATHER, apart=GATHER)
        self._templates = Together(self._read_templates, gather=GATHER, apart=GATHER)
        self._pods = Together(self._read_pods, gather=GATHER, apart=poll, each=EACH)
        self._comings = Together(self._read_comings, gather=GATHER, apart=poll, each=EACH)
        self._counted: dict[str, int] = {}
        ends = partial(self._read_pods, can_wait=True)
        self._ends = Together(ends, gather=GATHER, apart=poll * SELDOM, each=EACH * SELDOM)

    async def prepare(self, operation: Operation, release: ReleaseRef, source: str) -> Prepared:
        """Have one slot hold the release's image; see `Cluster.prepare`."""
        HostBounds(self._share.cluster).check(operation)
        async with self._changing:
            image: Digest | None = None
            for _ in range(TRIES):
                templates = await self._read_until_held(release.digest, image)
                if image is None:
                    await self._keep_known_good(operation, release.digest, templates)
                    image = await self._vouches.image_of(release, source)
                done = self._held(templates, release.digest, image)
                if done is None and len(templates) == len(self._share.slots):
                    done = await self._filled(operation, release, image, templates)
                if done is not None:
                    if done.changed or any(one.slot == done.slot and not one.seen for one in templates):
                        await self._until_seen(done.slot)
                    return done
        raise Unavailable(f"the slots of {self._share.cluster} are not settled yet: they are read again")

    async def place(self, operation: Operation, node: str, slot: str, image: Digest) -> Placed:
        """Have the slot's instance run on the node; see `Cluster.place`."""
        HostBounds(operation.gateway).check(operation)
        self._require_slot(slot)
        with self._kept_as_it_is(slot):
            changed = await self._give(operation, node, slot, image)
            pod = await self._up(node, slot, image, begun_before=not changed)
        return Placed(
            gateway=operation.gateway,
            slot=slot,
            instance=pod.uid,
            image=pod.runs,
            started_at=pod.started_at,
            changed=changed,
        )

    async def remove(self, operation: Operation, node: str, slot: str, instance: str | None) -> Removed:
        """Have the slot's instance on the node end, and wait for it; see `Cluster.remove`."""
        HostBounds(operation.gateway).check(operation)
        self._require_slot(slot)
        for _ in range(TRIES):
            found = await self._known(node)
            if found is not None:
                self._require_newest(found, operation)
            pods = (await self._pods.ask((node, slot)) or ()) if instance is not None else ()
            if another := _another(pods, instance):
                gone = all(pod.uid != instance for pod in pods)
                why = f"{node} runs {another.uid} in slot {slot} by now, which was left alone"
                return Removed(gateway=operation.gateway, slot=slot, gone=gone, changed=False, why=why)
            if found is None or slot not in found.slots(self._share) | found.ordered(self._share):
                return await self._gone(operation, node, slot, instance, changed=False)
            if await self._taken_from(found, slot, operation):
                return await self._gone(operation, node, slot, instance, changed=True)
        raise Unavailable(f"{node} changes faster than it can be read: try again")

    async def look(
        self, nodes: Mapping[str, str], back: Mapping[str, ReleaseRef] | None = None, source: str = ""
    ) -> Sequence[NodeLook]:
        """Return what is true of these gateways' nodes now; see `Cluster.look`."""
        known_good = back or {}
        releases = {release.digest: release for release in known_good.values()}
        refused = {digest: await self._vouches.no_way_back(one, source) for digest, one in releases.items()}

        async def one(gateway: str, name: str) -> NodeLook:
            node, pods = await asyncio.gather(self._nodes.ask(name), self._pods.ask((name, "")))
            look = look_of(self._share, gateway, name, node, pods or ())
            release = known_good.get(gateway)
            return look.model_copy(update={"no_way_back": refused[release.digest]}) if release else look

        return await asyncio.gather(*(one(gateway, name) for gateway, name in nodes.items()))

    async def lacking(self) -> tuple[str, ...]:
        """Return which rights the cluster does not give this driver, each in words."""
        return tuple(str(one) for one in await self._api.lacking())

    async def _require_rights(self) -> None:
        """Refuse to begin what would fail halfway; a server that starts knows no rights for a moment."""
        until, pause = time.monotonic() + self._api.patience, 0.2
        while missing := await self.lacking():
            if time.monotonic() > until:
                raise NotAllowed(
                    f"the cluster does not let {self._share.fleet}'s driver {', '.join(missing)}: add that "
                    "to its roles; penstock cluster check tells when it is there"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _require_slot(self, slot: str) -> None:
        if slot not in self._share.slots:
            known = ", ".join(sorted(self._share.slots))
            raise BadInput(f"{self._share.cluster} has no slot {slot}; its file names {known}")

    def _require_newest(self, node: Node, operation: Operation) -> None:
        epoch = node.epoch(self._share)
        if epoch > operation.epoch:
            raise Fenced(
                f"step {operation.step} of {operation.rollout} has epoch {operation.epoch}, and {node.name} "
                f"belongs to a change of epoch {epoch}: nothing was done",
                epoch,
            )

    @contextmanager
    def _kept_as_it_is(self, slot: str) -> Iterator[None]:
        """Have nobody give the slot another image meanwhile."""
        if slot in self._taken:
            raise Unavailable(f"slot {slot} of {self._share.cluster} is being given another image: try again")
        self._placing[slot] += 1
        try:
            yield
        finally:
            self._placing[slot] -= 1

    @contextmanager
    def _taken_for_a_change(self, slot: str) -> Iterator[None]:
        """Have nobody place the slot meanwhile."""
        self._taken.add(slot)
        try:
            yield
        finally:
            self._taken.discard(slot)

    async def _read_until_held(self, release: Digest, image: Digest | None) -> list[Template]:
        """Return the templates of all slots, or of the last one alone where that holds the release."""
        found = []
        for slot in sorted(self._share.slots, key=lambda one: one != self._last):
            found.append(await read_template(self._api, self._share, slot))
            if slot == self._last and self._holds(found[0], release, image):
                break
        return found

    async def _keep_known_good(
        self, operation: Operation, release: Digest, templates: Sequence[Template]
    ) -> None:
        """Keep as known-good the releases that earlier changes gave to nodes, before this one is judged.

        A slot that holds this very release counts without nodes, too: its only one may have lost its label.
        """
        for one in templates:
            serves = bool(one.release and one.wanted) or self._holds(one, release)
            if serves and one.rollout != operation.rollout:
                await asyncio.to_thread(self._vouches.keep, one.release)

    async def _until_seen(self, slot: str) -> None:
        """Wait until the slot's controller knows what it holds; it is behind after its API server was away.

        Raises:
            Unavailable: It does not in time.
        """
        for pause in SEEN_AFTER:
            template = await self._templates.ask(slot)
            if template is None or template.seen:
                return
            await asyncio.sleep(pause)
        raise Unavailable(self._not_seen(slot))

    def _not_seen(self, slot: str) -> str:
        return (
            f"the controllers of {self._share.cluster} have not taken up yet what slot {slot} holds, and "
            "would start what it held before: try again"
        )

    def _held(self, templates: Sequence[Template], release: Digest, image: Digest) -> Prepared | None:
        """Return the slot that holds the release already."""
        found = [one for one in templates if self._holds(one, release, image)]
        if not found:
            return None
        self._last = max(found, key=lambda one: one.wanted).slot
        return Prepared(cluster=self._share.cluster, slot=self._last, image=image, changed=False)

    async def _filled(
        self, operation: Operation, release: ReleaseRef, image: Digest, templates: Sequence[Template]
    ) -> Prepared | None:
        """Have a free slot hold the release; None where the slots have to be looked at again."""
        await self._require_rights()
        reasons = []
        for template in templates:
            with self._taken_for_a_change(template.slot):
                why = await self._why_not(template)
                if why is None:
                    return await self._fill(template, operation, release, image)
            if why == UNSETTLED:
                await asyncio.sleep(POLL)
                return None
            reasons.append(f"slot {template.slot} {why}")
        taken = "; ".join(sorted(reasons))
        raise Refused(
            f"no slot of {self._share.cluster} is free for {release.version}: {taken}. Let "
            "drains end, or give gateways another slot"
        )

    def _holds(self, template: Template, release: Digest, image: Digest | None = None) -> bool:
        """Return whether the slot holds the release, by the image that we gave it unless another is named."""
        named = self._share.image(image or template.given)
        return template.release == release and template.image == named and template.waits

    async def _why_not(self, template: Template) -> str | None:
        """Return why the slot cannot hold another release now, None where it can.

        Nodes and pods are asked: the cluster counts a label that was just given, or taken, a moment later.

        Raises:
            Refused: Somebody else sets its image.
        """
        slot = template.slot
        if placing := self._placing[slot]:
            return f"is being given to {placing} nodes"
        if given := await anybody_given(self._api, self._share, slot):
            what = template.release or template.image
            return f"runs {what} on {max(template.wanted, len(given))} nodes, as {' and '.join(given)}"
        if left := await any_pods(self._api, self._share, slot):
            return f"still has instances on {' and '.join(left)}"
        if template.wanted:
            return UNSETTLED
        if template.taken_over:
            await self._refuse_other_owner(template)
        return None

    async def _refuse_other_owner(self, template: Template) -> None:
        said = (
            f"DaemonSet {template.name} is written by somebody else: {template.taken_over}. Have them leave "
            f"its image and updateStrategy to penstock, and take annotation {IMAGE} off its template"
        )
        await self._events.tell(template, "ImageTakenOver", said, wrong=True)
        raise Refused(said)

    async def _fill(
        self, template: Template, operation: Operation, release: ReleaseRef, image: Digest
    ) -> Prepared | None:
        await self._lease.hold()
        try:
            now = await apply(
                self._api, self._share, template, image, release=release.digest, rollout=operation.rollout
            )
        except (Stale, Unread):
            return None
        self._last = now.slot
        if not self._holds(now, release.digest, image):
            raise Refused(
                f"DaemonSet {template.name} took the image and holds {now.image}: something changes it"
            )
        await self._events.tell(
            now, "SlotPrepared", f"slot {now.slot} holds {release.version}, image {image}"
        )
        return Prepared(cluster=self._share.cluster, slot=now.slot, image=image, changed=True)

    async def _give(self, operation: Operation, node: str, slot: str, image: Digest) -> bool:
        """Have the node bear the slot's label in this epoch; return whether it did not before."""
        for _ in range(TRIES):
            found, template = await asyncio.gather(self._nodes.ask(node), self._require_image(slot, image))
            if found is None:
                raise Refused(f"{self._share.cluster} has no node {node}")
            self._require_may_run(found, operation, slot)
            mine = found.epoch(self._share) == operation.epoch
            if mine and slot in found.slots(self._share) & found.ordered(self._share):
                return False
            if not template.seen:
                raise Unavailable(self._not_seen(slot))
            await self._lease.hold()
            try:
                now = await give(self._api, self._share, found, slot, operation.epoch)
            except (Stale, Unread):
                continue
            except Absent as error:
                raise Refused(f"{self._share.cluster} has no node {node} any more") from error
            self._written[node] = now, time.monotonic()
            return True
        raise Unavailable(f"{node} changes faster than it can be read: try again")

    async def _require_image(self, slot: str, image: Digest) -> Template:
        """Return the slot's template; Refused where it holds another image."""
        template, wanted = await self._templates.ask(slot), self._share.image(image)
        if template is None or template.image != wanted:
            held = template.image if template is not None else "none"
            why = f" ({template.taken_over})" if template is not None and template.taken_over else ""
            raise Refused(
                f"slot {slot} holds image {held} by now{why}, and {wanted} was ordered: prepare it again"
            )
        return template

    def _require_may_run(self, node: Node, operation: Operation, slot: str) -> None:
        self._require_newest(node, operation)
        if strange := node.lacks(self._share, operation.gateway):
            raise Refused(strange)
        if node.cordoned and slot not in node.slots(self._share):
            raise Refused(
                f"{node.name} is cordoned: nothing is started there until it is not (kubectl uncordon)"
            )
        if not node.ready:
            raise Unavailable(f"{node.name} does not report to {self._share.cluster}: it is not ready")

    async def _up(self, node: str, slot: str, image: Digest, *, begun_before: bool) -> Pod:
        """Return the instance once its node says that it is ready and of this image."""
        begun, why = time.monotonic(), ""
        pods_of = self._pods if begun_before else self._comings
        for pause in self._comes.looks(self._up_within, begun_before=begun_before):
            try:
                pods = await pods_of.ask((node, slot), pause) or ()
                why = self._why_not_up(pods, image)
            except Unavailable as error:  # a list that failed: the instance may come up all the same
                why = str(error)
            if not why:
                if not begun_before:
                    self._comes.came(begun)
                return next(pod for pod in pods if not pod.ending)
        raise Unavailable(f"slot {slot} of {node} is not up after {self._up_within:g} s: {why}")

    def _why_not_up(self, pods: Sequence[Pod], image: Digest) -> str:
        """Return in words what is waited for, empty where the instance is up; Refused where it never will."""
        live = [pod for pod in pods if not pod.ending]
        if not live:
            ending = "; ".join(f"{pod.name} ends first, by {pod.ends_by} at the latest" for pod in pods)
            return ending or "the cluster has not made a pod yet"
        pod = live[0]
        if pod.asked != self._share.image(image):
            return f"{pod.name} was made with {pod.asked}, before the slot was prepared: remove it first"
        if pod.beside:
            raise Refused(
                f"{pod.name} has {' and '.join(pod.beside)} beside its daemon, which nobody has signed: "
                f"see who puts it into pods of {self._share.cluster}"
            )
        if not pod.ready:
            return f"{pod.name}: {pod.why}"
        if pod.runs and pod.runs != image:
            raise Refused(f"{pod.node} reports that {pod.name} runs {pod.runs}, and {image} was ordered")
        return "" if pod.runs else f"{pod.name} is ready, and {pod.node} does not say of which image"

    async def _known(self, node: str) -> Node | None:
        """Return the node as we have just written it, or as it is: the next write tells what has changed."""
        written, at = self._written.pop(node, (None, 0.0))
        return (
            written if written is not None and time.monotonic() - at < FRESH else await self._nodes.ask(node)
        )

    async def _taken_from(self, node: Node, slot: str, operation: Operation) -> bool:
        """Take the slot from the node; return whether it is known to be done."""
        await self._lease.hold()
        try:
            await take(self._api, self._share, node, slot, operation.epoch)
        except (Stale, Unread, Absent):
            return False
        return True

    async def _gone(
        self, operation: Operation, node: str, slot: str, instance: str | None, *, changed: bool
    ) -> Removed:
        begun, why = time.monotonic(), ""
        for pause in self._goes.looks(self._gone_within):
            try:
                pods = await self._ends.ask((node, slot), pause) or ()
                why = "; ".join(_how_it_ends(pod) for pod in pods if instance in (None, pod.uid))
            except Unavailable as error:  # it goes on ending meanwhile
                why = str(error)
            if not why:
                self._goes.came(begun)
                break
        return Removed(gateway=operation.gateway, slot=slot, gone=not why, changed=changed, why=why)

    async def _read_nodes(self, names: set[str]) -> Mapping[str, Node]:
        return await read_nodes(self._api, self._share, names, self._extent)

    async def _read_templates(self, slots: set[str]) -> Mapping[str, Template]:
        return {slot: await read_template(self._api, self._share, slot) for slot in slots}

    async def _read_pods(
        self, asked: set[tuple[str, str]], *, can_wait: bool = False
    ) -> Mapping[tuple[str, str], tuple[Pod, ...]]:
        return await read_pods(self._api, self._share, asked, self._extent, can_wait=can_wait)

    async def _read_comings(self, asked: set[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[Pod, ...]]:
        """Read the pods of many when all are counted as ready, or a while later: the list is megabytes."""
        many = self._extent.is_long and len(asked) > self._extent.few
        until = time.monotonic() + COUNTED_FOR
        slots = {slot for _, slot in asked}
        while many and time.monotonic() < until:
            if await self._all_ready(slots):
                break
            await asyncio.sleep(POLL)
        return await self._read_pods(asked)

    async def _all_ready(self, slots: set[str]) -> bool:
        """Return whether all instances of these slots are counted as ready, and were not the last time."""
        found = await asyncio.gather(*(self._templates.ask(slot) for slot in slots), return_exceptions=True)
        templates = [one for one in found if isinstance(one, Template)]
        counted = {one.slot: one.ready for one in templates}
        if counted == self._counted or any(one.ready < one.wanted for one in templates):
            return False
        self._counted = counted
        return True


def _another(pods: Sequence[Pod], instance: str | None) -> Pod | None:
    """Return an instance that lives in the place of the one that is named."""
    if instance is None:
        return None
    return next((pod for pod in pods if pod.uid != instance and not pod.ending), None)


def _how_it_ends(pod: Pod) -> str:
    if not pod.ending:
        return f"{pod.name} has not been told to end yet"
    return f"{pod.name} is told to end and waits for its last users, until {pod.ends_by} at the latest"
