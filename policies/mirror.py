"""Mirrors: which shadow logins follow from the logins that users made, and what they show of a release."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from statistics import median, quantiles

from policies.model.mirror import (
    FEWEST,
    MINUTE,
    MOST_RECORDED,
    RECORDED,
    Beside,
    Mirror,
    RecordedLogin,
    ShadowLogin,
    Tried,
)
from policies.model.release_tests import Asked, Measurement
from policies.model.value import Value

ENOUGH = 0.5
"""Part of the shadow logins that have to be made, and let in by the old instance, to say something."""

ANY = RecordedLogin(at=0.0)
"""What is added is like this where nothing was recorded."""

TENTHS = 10


class Schedule(Value):
    """Shadow logins in their order, and in a few words what they were made of."""

    logins: tuple[ShadowLogin, ...]
    said: str


def schedule(
    recorded: Sequence[RecordedLogin], mirror: Mirror, until: float, transports: Mapping[str, int]
) -> Schedule:
    """Return the shadow logins that mirror what was recorded in the hour before `until`.

    The busiest stretch as long as the mirror is played at its own pace, so that bursts stay what they were.
    Where it has fewer logins than are needed, the busiest of twice, three times the length is played twice,
    three times as fast, up to the whole hour; what is still missing is added evenly. In no minute are there
    more than `at_most`: every so-manieth is left out then.

    Args:
        recorded: Logins that users made, in any order.
        mirror: For how long, and how many.
        until: The end of the hour, in seconds of the epoch.
        transports: How many of the present tunnels are carried by `dtls`, and by `tls` alone.
    """
    hour = RECORDED.total_seconds()
    known = sorted((one for one in recorded if until - hour <= one.at <= until), key=lambda one: one.at)
    known = known[-MOST_RECORDED:]
    needed = round(mirror.at_least * mirror.seconds / MINUTE)
    stretch, faster, began = _stretch(known, mirror.seconds, needed)
    played = [((one.at - began) / faster, one) for one in stretch]
    kept = _thinned(played, mirror.at_most)
    full = _filled(kept, known, needed, mirror)
    with_udp = _with_udp(len(full), transports)
    logins = tuple(
        ShadowLogin(after=after, family=like.family, client=like.client, udp=udp)
        for (after, like), udp in zip(full, with_udp, strict=True)
    )
    said = _said(len(known), len(played), len(kept), len(full), faster)
    return Schedule(logins=logins, said=said)


def shown(found: Sequence[Beside], planned: int) -> tuple[Measurement, ...]:
    """Return what the shadow logins show, or why they show nothing: silence is never a pass.

    A login counts where the old instance let its own in at the same moment: what ails both is nobody's fault.
    """
    made = [(one.new, one.old) for one in found if one.new is not None and one.old is not None]
    counted = [(new, old) for new, old in made if old.let_in]
    told = (
        f"{sum(new.let_in for new, _ in made)} and {len(counted)} of {len(made)} shadow logins let in, "
        "new and old"
    )
    if len(counted) < max(FEWEST, ENOUGH * planned):
        why = next((f": {old.said}" for _, old in made if not old.let_in), "")
        return unknown(f"{told}, of {planned} that were to be made: too few to compare{why}")
    refused = [new for new, _ in counted if not new.let_in]
    # Chance meets both alike: as many as only the old one refused are no fault of the new one.
    by_chance = sum(new.let_in and not old.let_in for new, old in made)
    return (
        Measurement(
            test=Asked.MIRROR_REFUSED,
            measured=max(0, len(refused) - by_chance) / len(counted),
            said=f"{told}: {refused[0].said}" if refused else told,
        ),
        _times(counted),
    )


def unknown(said: str) -> tuple[Measurement, ...]:
    """Return that nothing was measured, and why."""
    return tuple(Measurement(test=test, said=said) for test in (Asked.MIRROR_REFUSED, Asked.MIRROR_SECONDS))


def _times(counted: Sequence[tuple[Tried, Tried]]) -> Measurement:
    both = [(new.seconds, old.seconds) for new, old in counted]
    pairs = [(new, old) for new, old in both if new is not None and old is not None]
    if len(pairs) < FEWEST:
        said = f"only {len(pairs)} of {len(counted)} shadow logins came through at both instances"
        return Measurement(test=Asked.MIRROR_SECONDS, said=said)
    new, old = [one for one, _ in pairs], [one for _, one in pairs]
    late = [quantiles(times, n=TENTHS, method="inclusive")[-1] for times in (new, old)]
    return Measurement(
        test=Asked.MIRROR_SECONDS,
        measured=median(new),
        control=median(old),
        said=f"half within {median(new):.3f} and {median(old):.3f} s, nine tenths within {late[0]:.3f} and "
        f"{late[1]:.3f} s, new and old",
    )


def _stretch(
    known: Sequence[RecordedLogin], seconds: float, needed: int
) -> tuple[Sequence[RecordedLogin], int, float]:
    """Return the busiest stretch that has enough logins, how much faster it is played, and its beginning."""
    if not known:
        return (), 1, 0.0
    times = [one.at for one in known]
    longest = max(1, int(RECORDED.total_seconds() // seconds))
    for faster in range(1 if len(known) >= needed else longest, longest + 1):
        length = seconds * faster
        counts = [bisect_left(times, at + length) - index for index, at in enumerate(times)]
        most = max(counts)
        if most >= needed or faster == longest:
            first = counts.index(most)
            return known[first : first + most], faster, times[first]
    raise AssertionError("the last length is always taken")  # pragma: no cover


def _thinned(
    played: Sequence[tuple[float, RecordedLogin]], at_most: int
) -> list[tuple[float, RecordedLogin]]:
    """Leave every so-manieth out, so that no minute has more than `at_most`."""
    times = [after for after, _ in played]
    peak = max((bisect_left(times, at + MINUTE) - index for index, at in enumerate(times)), default=0)
    if peak <= at_most:
        return list(played)
    return [
        one for index, one in enumerate(played) if (index + 1) * at_most // peak > index * at_most // peak
    ]


def _filled(
    kept: Sequence[tuple[float, RecordedLogin]],
    known: Sequence[RecordedLogin],
    needed: int,
    mirror: Mirror,
) -> list[tuple[float, RecordedLogin]]:
    """Add logins evenly until there are as many as needed, where their minute has room for them."""
    full, missing = list(kept), needed - len(kept)
    likes = known or (ANY,)
    for number in range(max(0, missing)):
        after = (number + 0.5) * mirror.seconds / missing
        times = [at for at, _ in full]
        if _most_around(times, after) < mirror.at_most:
            full.insert(bisect_right(times, after), (after, likes[number % len(likes)]))
    return full


def _most_around(times: Sequence[float], at: float) -> int:
    """Return how many of these sorted times are in the fullest minute that a login at `at` would be in."""
    near = times[bisect_right(times, at - MINUTE) : bisect_left(times, at + MINUTE)]
    begins = [one for one in near if one <= at] + [at]
    return max(bisect_left(near, one + MINUTE) - bisect_left(near, one) for one in begins)


def _with_udp(many: int, transports: Mapping[str, int]) -> list[bool]:
    """Return for each login whether it has UDP beside TLS: as often as present tunnels, spread evenly."""
    udp, all_of = transports.get("dtls", 0), sum(transports.values())
    if not all_of:
        return [True] * many
    return [(index + 1) * udp // all_of > index * udp // all_of for index in range(many)]


def _said(known: int, played: int, kept: int, made: int, faster: int) -> str:
    pace = "at their own pace" if faster == 1 else f"{faster} times as fast"
    said = [f"{kept} of {known} logins of the last hour {pace}" if known else "no login in the last hour"]
    if left_out := played - kept:
        said.append(f"{left_out} left out")
    if added := made - kept:
        said.append(f"{added} added to be as many as asked for")
    return ", ".join(said)
