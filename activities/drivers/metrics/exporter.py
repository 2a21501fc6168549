"""What each gateway tells Prometheus: logins, sessions, probe and processes of every instance.

Counters restart at zero with the exporter or the daemon, which Prometheus understands. A
login is never shown twice: how far the log was read is on disk before the numbers that
came of it are shown. What was read but not shown is read again. Logins that were read and wait to be certain
when an exporter ends are in no numbers, good ones and bad ones alike.

The start time of a daemon changes only with its process. The exporter reads the time of the boot once in
each boot and keeps it on disk, because each step of the host's clock moves what the kernel reports.
"""

import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import ValidationError, model_validator

from activities.drivers.daemon.port import LoginReader
from activities.drivers.metrics.log_tail import LogTail, Mark
from activities.drivers.metrics.process_tree import usage
from activities.drivers.runtime.host.process import Alive, boot_id, boot_time
from policies.attempts import Attempt, FirstAttempts, LoginOutcome, RememberedKeys, Sources
from policies.model.value import Value

BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FRESH_SECONDS = 15.0
"""Older answers about sessions and probes are not shown: unknown is never the last thing known."""

LABELS = ("slot", "digest")


@dataclass(frozen=True)
class Running:
    """An instance found running: where, as which process, from which bytes, called which version."""

    slot: str
    process: Alive
    digest: str
    version: str


Hears = Callable[[Running, str], None]
"""Takes each line of an instance's log."""


Notes = Callable[[Attempt], None]
"""Takes each login whose moment is known."""


def nobody_notes(attempt: Attempt) -> None:
    """Note nothing."""
    del attempt


def nobody_hears(running: Running, line: str) -> None:
    """Take no line anywhere."""
    del running, line


class Kept(Value):
    """What must survive the exporter so that nothing counts twice: of one slot."""

    boot: str
    process: str
    """The name of the process whose log this is about."""
    mark: Mark
    seen: RememberedKeys
    booted: float | None = None
    """When that boot began by the first reading in it, in seconds since 1970."""

    @model_validator(mode="before")
    @classmethod
    def _older(cls, found: Any) -> Any:
        """Read what older exporters kept, which was the number and the start of the process."""
        if isinstance(found, dict) and "pid" in found:
            named = {key: value for key, value in found.items() if key not in ("pid", "start")}
            return {**named, "process": f"{found['pid']}.{found.get('start')}"}
        return found

    def is_of(self, process: Alive | None) -> bool:
        """Whether this is about exactly that process."""
        return process is not None and (process.boot, process.name) == (self.boot, self.process)


@dataclass
class TimedReading:
    """Something asked of an instance now and then, with the time of the answer."""

    value: float | None = None
    at: float = float("-inf")

    def fresh(self, now: float) -> float | None:
        """Return the value unless it is too old."""
        return self.value if now - self.at <= FRESH_SECONDS else None


@dataclass
class Watched:
    """One running instance and what was counted of it."""

    running: Running
    tail: LogTail
    logins: LoginReader
    first: FirstAttempts
    hears: Hears
    booted: float
    """When the boot began by the first reading in it, in seconds since 1970."""
    notes: Notes = nobody_notes
    outcomes: dict[LoginOutcome, int] = field(default_factory=lambda: dict.fromkeys(LoginOutcome, 0))
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    caught_up: float | None = None
    """Since when it is read as it is written."""
    sessions: TimedReading = field(default_factory=TimedReading)
    probe: TimedReading = field(default_factory=TimedReading)

    @property
    def kept(self) -> Kept:
        """What a successor of this exporter needs to know."""
        process = self.running.process
        return Kept(
            boot=process.boot,
            process=process.name,
            mark=self.tail.mark,
            seen=self.first.seen,
            booted=self.booted,
        )

    @property
    def started(self) -> float:
        """When the daemon started, in seconds since 1970; a step of the host's clock does not change it."""
        process = self.running.process
        if process.after_boot is None:
            return process.started_at.timestamp()
        return self.booted + process.after_boot

    def follow(self, at: float) -> None:
        """Count what the log has to say since the last time."""
        lines = self.tail.read()
        for line in lines:
            self.hears(self.running, line)
            self._take(self.logins.read(line, at, timed=self.caught_up is not None))
        if self.caught_up is None and not lines:
            self.caught_up = at

    def give_up(self, at: float) -> None:
        """Count what time alone makes certain, once everything was read that is there."""
        self.follow(at)
        self._take(self.logins.give_up(at))

    def _take(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            self.count(attempt)
            if self.caught_up is not None and attempt.ended >= self.caught_up:
                self.notes(attempt)  # when a backlog is read says nothing of when people came

    def count(self, attempt: Attempt) -> None:
        """Count the attempt if it is its key's first; a retry's duration says nothing new either."""
        if not self.first.counts(attempt):
            return
        self.outcomes[attempt.outcome] += 1
        if attempt.seconds is not None:
            self.buckets[bisect_left(BUCKETS, attempt.seconds)] += 1
            self.seconds += attempt.seconds


class GatewayExporter(Collector):
    """Watches the instances of one gateway and shows them to Prometheus."""

    def __init__(
        self,
        logs: Mapping[str, Path],
        find: Callable[[], Iterable[Running]],
        process: Callable[[str], Alive | None],
        reader: Callable[[], LoginReader],
        serving: Callable[[], str | None],
        memory: Path,
        hears: Hears = nobody_hears,
        notes: Notes = nobody_notes,
    ) -> None:
        """Compose an exporter; nothing is read yet.

        Args:
            logs: The log of each slot; instances of a slot append to the same one.
            find: Tells which instances run now.
            process: Tells what runs in a slot now, also before it was found to be an instance.
            reader: Makes a reader for the log of one instance.
            serving: Tells which slot gets new sessions now; None when unknown.
            memory: The file in which the reading marks are kept.
            hears: Takes each line that is read, as often as it is read.
            notes: Takes each login, retries too, that was logged while this exporter read along.
        """
        self._find = find
        self._reader = reader
        self._serving = serving
        self._memory = memory
        self._sources = Sources()
        self._hears = hears
        self._notes = notes
        self._kept = _remembered(memory)
        self._booted = _booted(self._kept.values())
        self._tails = {slot: _tail(path, self._kept.get(slot), process(slot)) for slot, path in logs.items()}
        self._watched: dict[str, Watched] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Notice instances that started or stopped, and workers that went without a word."""
        found = {running.slot: running for running in self._find()}
        with self._lock:
            for slot, tail in self._tails.items():
                tail.reopen()
                self._notice(slot, found.get(slot))
            now = time.time()
            for watched in self._watched.values():
                watched.give_up(now)

    def follow(self) -> None:
        """Read on in every log; called every few hundredths of a second, which is the clocks' resolution."""
        with self._lock:
            now = time.time()
            for watched in self._watched.values():
                watched.follow(now)

    @property
    def running(self) -> tuple[Running, ...]:
        """The instances watched now."""
        with self._lock:
            return tuple(watched.running for watched in self._watched.values())

    def learn(self, running: Running, *, sessions: int | None, probe: bool | None) -> None:
        """Take in what an instance answered; None is unknown and is not shown."""
        with self._lock:
            watched = self._watched.get(running.slot)
            if watched is None or watched.running != running:
                return
            now = time.monotonic()
            watched.sessions = TimedReading(None if sessions is None else float(sessions), now)
            watched.probe = TimedReading(None if probe is None else float(probe), now)

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: which series exist depends on what runs."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family, having first put on disk what they are made of."""
        serving = self._serving()
        with self._lock:
            now = time.time()
            for watched in self._watched.values():
                watched.follow(now)
            self._remember()
            all_watched = tuple(self._watched.values())
            families = [
                *_logins(all_watched),
                *_answers(all_watched),
                _build(self._watched.get(serving or "")),
                _boot(),
            ]
        yield from families
        yield from _processes(all_watched)

    def _notice(self, slot: str, running: Running | None) -> None:
        before = self._watched.get(slot)
        if before and running and before.running == running:
            return
        if before:
            before.follow(time.time())
            self._kept[slot] = before.kept
            del self._watched[slot]
        kept = self._kept.get(slot)
        same = kept is not None and running is not None and kept.is_of(running.process)
        if running is not None:
            first = FirstAttempts(kept.seen if kept and same else None, sources=self._sources)
            reader = self._reader()
            self._watched[slot] = Watched(
                running, self._tails[slot], reader, first, self._hears, self._booted, self._notes
            )

    def _remember(self) -> None:
        kept = {**self._kept, **{slot: watched.kept for slot, watched in self._watched.items()}}
        text = json.dumps({slot: one.model_dump() for slot, one in sorted(kept.items())})
        beside = self._memory.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._memory)


def _remembered(memory: Path) -> dict[str, Kept]:
    """Return what an earlier exporter kept; nothing when that cannot be read."""
    with suppress(OSError, ValueError, ValidationError):
        return {slot: Kept.model_validate(one) for slot, one in json.loads(memory.read_text()).items()}
    return {}


def _booted(kept: Iterable[Kept]) -> float:
    """Return when this boot began, as an earlier exporter of this boot first read it or as it is read now."""
    boot = boot_id()
    earlier = (one.booted for one in kept if one.boot == boot and one.booted is not None)
    return next(earlier, boot_time())


def _tail(log: Path, kept: Kept | None, process: Alive | None) -> LogTail:
    """Follow the log from where it was read to, or from its end if that instance has ended.

    What an instance logged while no exporter ran is evidence only as long as it is the same one.
    """
    if kept is not None and kept.is_of(process):
        return LogTail(log, kept.mark)
    tail = LogTail(log)
    tail.skip()
    return tail


def _labels(watched: Watched) -> list[str]:
    return [watched.running.slot, watched.running.digest]


def _logins(all_watched: Iterable[Watched]) -> Iterator[Metric]:
    attempts = CounterMetricFamily(
        "vpngw_first_attempts",
        "Logins by outcome, each user or source counted once in ten minutes",
        labels=(*LABELS, "outcome"),
    )
    durations = HistogramMetricFamily(
        "vpngw_handshake_seconds",
        "From a connection to its accepted login, without the time a person takes to answer",
        labels=LABELS,
    )
    for watched in all_watched:
        for outcome, count in watched.outcomes.items():
            attempts.add_metric([*_labels(watched), outcome.value], count)
        total, bounds = 0, list[tuple[str, float]]()
        for bound, count in zip((*BUCKETS, float("inf")), watched.buckets, strict=True):
            total += count
            bounds.append(("+Inf" if bound == float("inf") else str(bound), total))
        durations.add_metric(_labels(watched), buckets=bounds, sum_value=watched.seconds)
    yield attempts
    yield durations


def _answers(all_watched: Iterable[Watched]) -> Iterator[Metric]:
    sessions = GaugeMetricFamily("vpngw_sessions", "Live tunnels; absent when unknown", labels=LABELS)
    probes = GaugeMetricFamily(
        "vpngw_probe_success",
        "Whether the instance's own port completes TLS; absent when unknown",
        labels=LABELS,
    )
    now = time.monotonic()
    for watched in all_watched:
        for family, answer in ((sessions, watched.sessions), (probes, watched.probe)):
            value = answer.fresh(now)
            if value is not None:
                family.add_metric(_labels(watched), value)
    yield sessions
    yield probes


def _processes(all_watched: Iterable[Watched]) -> Iterator[Metric]:
    families: Mapping[str, GaugeMetricFamily] = {
        name: GaugeMetricFamily(f"vpngw_process_{name}", text, labels=LABELS)
        for name, text in (
            ("open_fds", "Open files of the daemon's process nearest to its limit"),
            ("max_fds", "The limit of that process"),
            (
                "resident_memory_bytes",
                "Resident memory of the daemon and its workers",
            ),
            (
                "start_time_seconds",
                "When the daemon started, by the host's clock when the exporter first ran in this boot",
            ),
        )
    }
    cpu = CounterMetricFamily("vpngw_process_cpu_seconds", "CPU of the daemon and its workers", labels=LABELS)
    for watched in all_watched:
        process, labels = watched.running.process, _labels(watched)
        used = usage(process.pid) if process.pid is not None else None
        if used is not None or process.pid is None:
            families["start_time_seconds"].add_metric(labels, watched.started)
        if used is None:  # it has ended, or its processes are not seen from here
            continue
        watched.cpu_seconds = max(watched.cpu_seconds, used.cpu_seconds)
        cpu.add_metric(labels, watched.cpu_seconds)
        families["open_fds"].add_metric(labels, used.open_fds)
        families["max_fds"].add_metric(labels, used.max_fds)
        families["resident_memory_bytes"].add_metric(labels, used.resident_bytes)
    yield cpu
    yield from families.values()


def _build(serving: Watched | None) -> Metric:
    build = GaugeMetricFamily(
        "vpngw_build_info", "What gets new sessions now", labels=("digest", "slot", "version")
    )
    if serving is not None:
        running = serving.running
        build.add_metric([running.digest, running.slot, running.version or serving.logins.version], 1)
    return build


def _boot() -> Metric:
    boot = GaugeMetricFamily(
        "vpngw_boot_info", "The host's boot, by which a reboot is told from a crash", labels=("boot_id",)
    )
    boot.add_metric([boot_id()], 1)
    return boot
