"""A load on a new instance and on the old one of the same host, in turn and within the same minute."""

from collections.abc import Sequence
from functools import partial

from activities.drivers.daemon.port import Burden, Daemon
from activities.drivers.metrics.process_tree import usage
from activities.drivers.runtime.host.slot_folders import SlotFolder
from policies.model.errors import PenstockError
from policies.model.release_tests import LOAD_ROUNDS, UNDER_LOAD, Asked, Load, Measurement


async def compared(
    daemon: Daemon, new: SlotFolder, old: SlotFolder | None, load: Load
) -> tuple[Measurement, ...]:
    """Return the best of what the load measured on each; without an old instance nothing is compared."""
    if old is None:
        return _unknown("no older release of ours serves on this host; name another gateway for the load")
    rounds: dict[str, list[Burden]] = {new.slot.name: [], old.slot.name: []}
    try:
        for folder in (new, old) * (LOAD_ROUNDS // 2):
            process = folder.process()
            if process is None:
                return _unknown(f"nothing runs in slot {folder.slot.name} any more")
            cpu = partial(_cpu_of, process.pid)
            rounds[folder.slot.name].append(await daemon.load(folder.chroot, load, cpu))
    except PenstockError as error:
        return _unknown(f"the load could not be made: {error}")
    return _measured(rounds[new.slot.name], rounds[old.slot.name], load)


def _cpu_of(pid: int | None) -> float | None:
    found = usage(pid) if pid is not None else None
    return None if found is None else found.cpu_seconds


def _unknown(said: str) -> tuple[Measurement, ...]:
    return tuple(Measurement(test=test, said=said) for test in UNDER_LOAD)


def _measured(new: Sequence[Burden], old: Sequence[Burden], load: Load) -> tuple[Measurement, ...]:
    speeds = _speed(new), _speed(old)
    costs = _cost(new), _cost(old)
    full = [max(one.handshakes for one in rounds) for rounds in (new, old)]
    resumed = [max(one.resumed for one in rounds) for rounds in (new, old)]
    return (
        _sessions(new, old, load),
        _both(Asked.THROUGHPUT, *speeds, "Mbit/s through all tunnels, both ways"),
        _both(Asked.CPU, *costs, "seconds of processor per Mbit"),
        _both(Asked.HANDSHAKES, full[0], full[1], "full handshakes per second"),
        _both(Asked.RESUMED, resumed[0], resumed[1], "resumed handshakes per second"),
    )


def _sessions(new: Sequence[Burden], old: Sequence[Burden], load: Load) -> Measurement:
    held, before = (min(one.sessions for one in rounds) for rounds in (new, old))
    said = f"the new instance held {held} of {load.sessions} sessions, the old one {before}"
    if before < load.sessions:
        mend = "raise max-same-clients, or lower tests.load.sessions"
        return Measurement(test=Asked.LOAD_SESSIONS, said=f"{said}: {mend}")
    return Measurement(test=Asked.LOAD_SESSIONS, measured=load.sessions - held, control=0, said=said)


def _both(test: Asked, new: float | None, old: float | None, what: str) -> Measurement:
    spoken = " and ".join("unknown" if one is None else f"{one:.4g}" for one in (new, old))
    return Measurement(test=test, measured=new, control=old, said=f"{spoken} {what}, new and old")


def _speed(rounds: Sequence[Burden]) -> float:
    """Return the best round's: whatever else the host does only ever makes one slower."""
    return max(one.megabits / one.seconds for one in rounds)


def _cost(rounds: Sequence[Burden]) -> float | None:
    """Return what a megabit costs in the cheapest round; what carried nothing has no price."""
    prices = [
        one.cpu_seconds / one.megabits for one in rounds if one.cpu_seconds is not None and one.megabits
    ]
    return min(prices, default=None)
