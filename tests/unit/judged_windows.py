"""Whole windows of a simulated fleet, as raw series, and what folding them comes to: for comparing versions.

`python -m tests.unit.judged_windows` writes `judged_windows.json` anew: what each gate said over each
window, as a digest of all its readings, and every change of the decision in full. The file is the memory
of how windows were judged; when a change alters it, the difference names the gates that judge otherwise.
"""

import json
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from activities.files import load
from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.window import WindowState, fold_reading
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts

MEMORY = Path(__file__).with_suffix(".json")
DEPLOY = Path(__file__).parents[2] / "deploy"
START = 1_800_000_000.0
NEW, OLD = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
BUCKETS = ("0.1", "0.5", "1.0", "5.0", "+Inf")
Samples = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True)
class Story:
    """One window: how large the fleet is, and what goes wrong from `onset` on, in seconds."""

    name: str
    policy: str = "prometheus"
    gateways: int = 6
    canaries: int = 1
    seconds: int = 1500
    per_minute: float = 60.0
    onset: float = 120.0
    canary_bad: float = 0.015
    shared_bad: float = 0.015
    slow: float = 0.03
    restarts: tuple[int, ...] = ()
    ends: int | None = None
    unscraped: int | None = None
    fds_per_minute: float = 0.0
    cpu_times: float = 1.0
    probe_fails: bool = False
    alert: bool = False
    baseline: bool = True
    tunnels: bool = False


STORIES = (
    Story("healthy"),
    Story("healthy and nothing known of before", baseline=False),
    Story("a fifth fails", canary_bad=0.2),
    Story("half fails in a fleet of twelve", gateways=12, canaries=3, canary_bad=0.5),
    Story("an outage of all", canary_bad=0.4, shared_bad=0.4),
    Story("slow logins, tunnels probed", slow=0.4, tunnels=True),
    Story("one restarts", restarts=(0,)),
    Story("all restart", restarts=(0, 1, 2, 3, 4, 5)),
    Story("one ends", ends=0),
    Story("one is not scraped", unscraped=0),
    Story("descriptors leak", fds_per_minute=40.0),
    Story("twice the work", cpu_times=4.0),
    Story("the probe fails", probe_fails=True),
    Story("an alert fires", alert=True),
    Story("few logins", per_minute=2.0),
    Story("lab, healthy", policy="lab", gateways=4, seconds=60, per_minute=120.0, onset=10),
    Story("lab, most fail", policy="lab", gateways=4, seconds=60, per_minute=120.0, onset=5, canary_bad=0.8),
    Story("lab, leak", policy="lab", gateways=4, seconds=60, per_minute=120.0, onset=1, fds_per_minute=4000),
)


class _Fleet:
    """Counters and gauges of every gateway, written down at each scrape."""

    def __init__(self, story: Story, gates: GatePolicy) -> None:
        self.story, self.gates = story, gates
        self.step = gates.scrape.total_seconds()
        self.names = tuple(f"10.0.0.{n}:9500" for n in range(1, story.gateways + 1))
        self.chance = random.Random(story.name)
        self.found: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}

    def history(self) -> Mapping[str, Sequence[Series]]:
        """Return everything Prometheus would have, by selector."""
        for place, name in enumerate(self.names):
            self._write(place, name)
        every = [
            Series(labels={"__name__": metric, **dict(labels)}, samples=tuple(samples))
            for (metric, labels), samples in self.found.items()
        ]
        wanted = {self.gates.presence, self.gates.identity.value}
        dumped = [gate.model_dump() for gate in self.gates.gates]
        for gate in dumped:
            wanted |= {gate[key] for key in ("bad", "total", "value", "per", "histogram") if gate.get(key)}
        return {selector: [one for one in every if _selects(selector, one)] for selector in wanted}

    def _write(self, place: int, name: str) -> None:
        story, canary = self.story, place < self.story.canaries
        digest = NEW if canary else OLD
        own = {"instance": name, "slot": "a", "digest": digest}
        outcomes = dict.fromkeys(("ok", "auth_fail", "timeout"), 0.0)
        buckets = dict.fromkeys(BUCKETS, 0.0)
        cpu = lossy = tunnels = 0.0
        began = -self.gates.baseline.total_seconds() - 60 if story.baseline else -60.0
        at = began + self.chance.uniform(0, self.step)
        while at < story.seconds:
            late = at >= story.onset
            bad = (story.canary_bad if canary else story.shared_bad) if late else 0.015
            slow = story.slow if canary and late else 0.03
            events = sum(
                self.chance.random() < story.per_minute / 6000 for _ in range(round(100 * self.step))
            )
            failed = sum(self.chance.random() < bad for _ in range(events))
            outcomes["ok"] += events - failed
            outcomes["auth_fail"] += failed // 2
            outcomes["timeout"] += failed - failed // 2
            for _ in range(events - failed):
                took = self.chance.choice((2.0, 0.9)) if self.chance.random() < slow else 0.2
                for bound in BUCKETS:
                    buckets[bound] += took <= float(bound)
            cpu += events * 0.02 * (story.cpu_times if canary and late else 1.0)
            tunnels += 5
            lossy += self.chance.random() < (0.5 if canary and late and story.tunnels else 0.02)
            away = story.unscraped == place and late
            self._add("up", {"instance": name, "job": "vpngw"}, at, 0.0 if away else 1.0)
            if not away:
                self._scraped(place, own, at, outcomes, buckets, cpu, (lossy, tunnels))
            at += self.step

    def _scraped(
        self,
        place: int,
        own: dict[str, str],
        at: float,
        outcomes: dict[str, float],
        buckets: dict[str, float],
        cpu: float,
        tunnels: tuple[float, float],
    ) -> None:
        story, canary, late = self.story, place < self.story.canaries, at >= self.story.onset
        self._add("vpngw_build_info", own, at, 1.0)
        for outcome, count in outcomes.items():
            self._add("vpngw_first_attempts_total", {**own, "outcome": outcome}, at, count)
        for bound, count in buckets.items():
            self._add("vpngw_handshake_seconds_bucket", {**own, "le": bound}, at, count)
        if story.tunnels:
            self._add("vpngw_tunnel_probe_lossy_total", own, at, tunnels[0])
            self._add("vpngw_tunnel_probes_total", own, at, tunnels[1])
        self._add("vpngw_sessions", own, at, 80.0 + place)
        if story.ends == place and late:
            return
        leak = story.fds_per_minute * (at - story.onset) / 60 if canary and late else 0.0
        self._add("vpngw_process_open_fds", own, at, 300 + self.chance.gauss(0, 3) + leak)
        self._add("vpngw_process_max_fds", own, at, 4096)
        self._add("vpngw_process_cpu_seconds_total", own, at, cpu)
        self._add("vpngw_process_resident_memory_bytes", own, at, 1e8 * (1 + self.chance.gauss(0, 0.01)))
        started = 1000.0 if not (place in story.restarts and late) else 5000.0
        self._add("vpngw_process_start_time_seconds", own, at, started)
        self._add("vpngw_probe_success", own, at, 0.0 if story.probe_fails and canary and late else 1.0)
        if story.alert and canary and late:
            self._add("ALERTS", {**own, "alertstate": "firing", "severity": "page"}, at, 1.0)

    def _add(self, metric: str, labels: dict[str, str], at: float, value: float) -> None:
        self.found.setdefault((metric, tuple(sorted(labels.items()))), []).append((START + at, value))


def _selects(selector: str, one: Series) -> bool:
    metric, _, rest = selector.partition("{")
    if one.labels["__name__"] != metric:
        return False
    for matcher in rest.rstrip("}").split(","):
        if matcher != "$cohort":
            label, _, value = matcher.replace("=~", "=").partition("=")
            if one.labels.get(label) not in value.strip('"').split("|"):
                return False
    return True


def readings(story: Story, gates: GatePolicy) -> Iterator[Reading]:
    """Yield what is read at every tick; one answer in twenty is lost."""
    history = _Fleet(story, gates).history()
    chance, lookback = random.Random(story.name + "lost"), 2 * gates.fresh_within.total_seconds()
    earlier = START - gates.baseline.total_seconds()
    at = START
    while at <= START + story.seconds:
        series = {name: _cut(found, at - lookback, at) for name, found in history.items()}
        before = {name: _cut(found, earlier - lookback, earlier) for name, found in history.items()}
        lost = {}
        if chance.random() < 0.05:
            selector = chance.choice(sorted(set(series) - {gates.presence}))
            series.pop(selector)
            lost = {selector: "no answer in time"}
        yield Reading(
            at=at,
            series=series,
            unread=lost,
            history=before,
            unreachable=frozenset({"10.0.0.1:9500"}) if story.name == "one is not scraped" else frozenset(),
            complaints={"10.0.0.1:9500": 1} if at == START + 30 else {},
        )
        at += gates.tick.total_seconds()


def _cut(series: Sequence[Series], after: float, until: float) -> tuple[Series, ...]:
    def when(sample: tuple[float, float]) -> float:
        return sample[0]

    found = []
    for one in series:
        first = bisect_right(one.samples, after, key=when)
        last = bisect_right(one.samples, until, lo=first, key=when)
        if first < last:
            found.append(Series(one.labels, one.samples[first:last]))
    return tuple(found)


def cohorts_of(story: Story) -> Cohorts:
    """Return who is judged against whom."""
    names = tuple(f"10.0.0.{n}:9500" for n in range(1, story.gateways + 1))
    canary, control = names[: story.canaries], names[story.canaries :]
    expected = {name: NEW if name in canary else OLD for name in names}
    return Cohorts(
        canary=canary, control=control, expected=expected, slots=dict.fromkeys(canary, "a"), since={}
    )


def judged(story: Story) -> dict[str, Any]:
    """Return what a window came to: per gate a digest of all readings, and each change of the decision."""
    gates = load(DEPLOY / story.policy / "gates.yaml", GatePolicy)
    cohorts, state = cohorts_of(story), WindowState()
    said: dict[str, Any] = {}
    changes: list[tuple[float, str, str, str]] = []
    for reading in readings(story, gates):
        state, _, decision = fold_reading(gates, gates.window, cohorts, state, reading)
        for one in decision.readings:
            line = json.dumps([reading.at, one.verdict, one.reason, one.numbers], sort_keys=True)
            said.setdefault(one.gate, sha256()).update(line.encode())
        now = (decision.action.value, decision.verdict.value)
        if not changes or (changes[-1][1], changes[-1][2]) != now:
            changes.append((reading.at - START, *now, decision.reason))
    return {"gates": {gate: digest.hexdigest()[:16] for gate, digest in said.items()}, "decisions": changes}


def remember(judge: Callable[[Story], dict[str, Any]] = judged) -> None:
    """Write down how all windows are judged now."""
    MEMORY.write_text(json.dumps({story.name: judge(story) for story in STORIES}, indent=1) + "\n")


if __name__ == "__main__":
    remember()
