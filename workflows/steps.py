"""How long a step may take and how often it is tried, by what it does.

Every step ends by a short clock or a heartbeat, so that work lost with a killed process
is noticed within seconds (research: temporal.md sections 1 and 3b).
"""

from datetime import timedelta
from typing import TypedDict

from temporalio import workflow
from temporalio.common import RetryPolicy

from policies.planning.leases import beat_of

CONTROL_QUEUE = "control"


class Options(TypedDict, total=False):
    """The part of an activity's options that these kinds of step fix."""

    start_to_close_timeout: timedelta
    schedule_to_start_timeout: timedelta
    schedule_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


HEARD_WITHIN = timedelta(seconds=3)
"""Silence after which whoever has a step is dead; it is heard of every second (`activities.liveness`)."""


def _retry(attempts: int) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=2),
        maximum_attempts=attempts,
    )


ASK = Options(
    start_to_close_timeout=timedelta(seconds=10),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=30),
    retry_policy=_retry(5),
)
"""Reads something; silence for longer than this is an answer."""

SURVEY = Options(
    start_to_close_timeout=timedelta(seconds=5),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=20),
    retry_policy=_retry(0),
)
"""Reads one of many gateways: reconcile looks at its pages twice a minute, silent gateways among them."""

STUDY = Options(
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=30),
    retry_policy=_retry(5),
)
"""Reads much, for seconds; a worker that dies meanwhile is noticed by its missing heartbeat."""

WALK = Options(
    start_to_close_timeout=timedelta(seconds=45),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_start_timeout=timedelta(seconds=20),
    schedule_to_close_timeout=timedelta(seconds=60),
    retry_policy=_retry(2),
)
"""Tries a tunnel of a gateway, for seconds; whoever asks is waiting."""

LOOK = Options(
    start_to_close_timeout=timedelta(seconds=5),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=10),
    retry_policy=_retry(0),
)
"""Reads a gateway that is to be changed next; the others wait for its answer, so it is asked again later."""

LOOK_AT_NODES = Options(
    start_to_close_timeout=timedelta(seconds=15),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=20),
    retry_policy=_retry(0),
)
"""Reads nodes of a cluster, of which a list of ten thousand takes some seconds, shared by all who ask."""

PLACED_LATE = HEARD_WITHIN + timedelta(seconds=32)
"""How long a placement may still reach a node after its change went back.

It hears of its end within HEARD_WITHIN. A call that was sent by then is read for 20 seconds, and an API
server under load keeps calls in a queue for 15.
"""

CHANGE = Options(
    start_to_close_timeout=timedelta(seconds=60),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_start_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=5),
    retry_policy=_retry(5),
)
"""Changes a gateway on the way forward: gives up in time, so that the way back begins.

An agent that takes no step for as long as a host takes to boot is silent.
"""

PREPARE = Options(
    start_to_close_timeout=timedelta(minutes=2),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=5),
    retry_policy=_retry(5),
)
"""Has a cluster fetch and verify a release: once for all of its gateways."""

PLACE = Options(
    start_to_close_timeout=timedelta(minutes=2),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_start_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=5),
    retry_policy=_retry(0),
)
"""Starts an instance on a node, which may have to pull its image first.

For a minute and a half after a control plane was restarted nothing comes up, and no release is at fault.
"""

INSPECT = Options(
    start_to_close_timeout=timedelta(minutes=4),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_start_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=8),
    retry_policy=_retry(3),
)
"""Makes up to eight connections, and one for each client profile, each with a bound of its own.

A good instance takes ten seconds, and three for each profile.
"""

MIRROR = Options(
    start_to_close_timeout=timedelta(minutes=11),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_start_timeout=timedelta(minutes=2),
    schedule_to_close_timeout=timedelta(minutes=25),
    retry_policy=_retry(2),
)
"""Makes shadow logins for ten minutes at most; the last of them have their own bound after that."""

LOAD = Options(
    start_to_close_timeout=timedelta(minutes=4),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=10),
    retry_policy=_retry(2),
)
"""Loads two instances in six rounds of ten seconds at most, with their logins."""

PROBE = Options(
    start_to_close_timeout=timedelta(seconds=60),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=2),
    retry_policy=_retry(2),
)
"""Logs in and pings where nothing waits for the answer; without one nothing is proven."""

FREEZE = Options(
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=30),
    retry_policy=_retry(0),
)
"""Writes evidence down on a host; what comes later than this is not of the failure any more."""

STEER = Options(
    start_to_close_timeout=timedelta(seconds=5),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=2),
    retry_policy=_retry(0),
)
"""Changes who gets new sessions: milliseconds when it works."""

SWITCH = STEER.copy()
SWITCH["schedule_to_close_timeout"] = timedelta(seconds=10)
"""A few tries of a switch on a host that may refuse it: then operators see why, and it is tried again."""

SWITCHED_WITHIN = timedelta(minutes=2)
"""How long a host may refuse a switch before its gateway fails by itself: as long as it may be silent."""

CONFIRM = Options(
    start_to_close_timeout=timedelta(seconds=5),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=20),
    retry_policy=_retry(0),
)
"""Renews a lease: late is the same as never, the kernel has acted by then."""


def confirm_within(lease: timedelta) -> Options:
    """Return CONFIRM for a lease: a silent gateway may not keep the others waiting until theirs end."""
    return _within(CONFIRM, min(CONFIRM["schedule_to_close_timeout"], lease / 3))


GO_BACK = CONFIRM.copy()
"""One round of the way back on one gateway; the rollback itself begins the next round."""


TURN_OF_A_PART = timedelta(seconds=0.8)
"""What fifty gateways that go back take of the engine's time: of 10,000, 60 have their step each second."""


def go_back_within(parts: int) -> Options:
    """Return GO_BACK when so many parts go back at once.

    Whoever waits for its turn is not silent, and asking again would only make everybody wait longer.
    """
    return _within(GO_BACK, GO_BACK["schedule_to_close_timeout"] + parts * TURN_OF_A_PART)


def _within(options: Options, time: timedelta) -> Options:
    changed = options.copy()
    changed["schedule_to_close_timeout"] = time
    return changed


WATCH = Options(
    start_to_close_timeout=timedelta(seconds=90),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=3),
    retry_policy=_retry(5),
)
"""One slice of an observation window; the watch reports why a slice fails, and begins the next."""

UNREAD_FOR = timedelta(minutes=2)
"""The maximum age of a watch's last reading: past it the change is held, and operators are notified.

A worker that is replaced, or a database that fails over, takes less.
"""

NOT_BACK_FOR = timedelta(seconds=30)
"""After which operators are notified of a gateway that failed alone and is not taken back.

A database that fails over, or a change that ends, takes less.
"""

NOTE = Options(
    start_to_close_timeout=timedelta(seconds=10),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(seconds=30),
    retry_policy=_retry(5),
)
"""Reads from the ledger, or writes to it what nothing depends on."""

RECORD = Options(
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARD_WITHIN,
    retry_policy=_retry(0),
)
"""Writes to the ledger: tried until it is written; a worker that dies over it is noticed by its heartbeat."""

PATIENT = Options(
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARD_WITHIN,
    retry_policy=_retry(0),
)
"""Has all the time in the world: tried until the gateway answers."""

REMOVE = Options(
    start_to_close_timeout=timedelta(minutes=2),
    heartbeat_timeout=HEARD_WITHIN,
    retry_policy=_retry(0),
)
"""Takes an unused instance from a node: tried until it is gone."""

END = Options(
    start_to_close_timeout=timedelta(seconds=30),
    heartbeat_timeout=HEARD_WITHIN,
    schedule_to_close_timeout=timedelta(minutes=1),
    retry_policy=_retry(0),
)
"""Ends a batch of sessions; other gateways wait for their turn, so a silent one is asked again later."""


def drain_heartbeat(draining: int) -> timedelta:
    """Return how long the engine waits for a beat of a drain while so many drain: two may be missed."""
    return beat_of(draining) * 5 / 2


DRAINS_AT_ONCE = 10
"""Parts of a change that begin to drain together: five hundred gateways."""

TURN_OF_A_DRAIN = timedelta(seconds=3)
"""Between the parts of a large fleet that begin to drain.

Each begins with two steps on each of its fifty gateways: a look, and the wait for its sessions. A drain
that knows its gateways takes the worker a megabyte, and the engine is wanted by leases that are renewed.
"""


def drain_turn(before: int) -> timedelta:
    """Return how long a part waits until it begins to drain, so many parts of its change being before it."""
    return max(0, before + 1 - DRAINS_AT_ONCE) * TURN_OF_A_DRAIN


NEXT_ROUND = timedelta(seconds=1)
"""Between two rounds of a rollback on a gateway that refuses."""

NEXT_LOOK = timedelta(seconds=10)
"""Between two looks of a drain at an instance that may not be stopped yet."""

SILENT_FOR = timedelta(minutes=2)
"""How long a gateway may be silent before it is changed: as long as a host takes to boot."""

NEXT_CAPACITY, LAST_CAPACITY = timedelta(seconds=30), timedelta(minutes=5)
"""Between two looks for capacity that gateways wait for: twice as long each time, from this to that."""

NEXT_TEST = timedelta(seconds=3)
"""Between two tries of release tests that cannot be made; twice as long each time, up to LAST_CAPACITY."""

LAPSES_AT_ONCE = 2
"""Lapses of a gateway's lease after which its trial begins again at once."""

NEXT_TRIAL, LAST_TRIAL = timedelta(minutes=1), timedelta(minutes=30)
"""Until a trial begins again whose lease lapses more often: twice as long each time, from this to that."""


def pause_after_lapses(lapses: int) -> timedelta:
    """Return how long a gateway stays on known-good after so many lapses of its lease in one wave.

    A host on which something flushes the rules in every minute makes no history longer without bound.
    """
    if lapses <= LAPSES_AT_ONCE:
        return timedelta(0)
    return min(NEXT_TRIAL * (1 << min(lapses - LAPSES_AT_ONCE - 1, 16)), LAST_TRIAL)


HELD_PACE = timedelta(seconds=5)
"""Between two looks at the metrics while nothing but time, an operator or harm can change the decision.

A look waits for its tick besides: harm is found as soon as in a window that goes on.
"""


SHORT_HISTORY = 1_000
"""Events after which a workflow that lasts continues as new; fifty gateways may still spend as many again."""


SWITCHED_HISTORY = 500
"""Events of which a batch frees its worker as soon as all have switched: they take a megabyte."""

LONG_HISTORY = 2_000
"""Events after which a batch begins with no further gateway, and waits for no ledger, until it is cut.

While ten gateways after ten are tested for minutes, the leases of the others are renewed beside them, and
there would be no moment at which nobody has a step under way.
"""


def history_is_longer_than(events: int) -> bool:
    """Whether this run has more events than that."""
    return workflow.info().get_current_history_length() > events


def history_is_long() -> bool:
    """Whether it is time to continue as new: by the engine's own word, or well before it."""
    return workflow.info().is_continue_as_new_suggested() or history_is_longer_than(SHORT_HISTORY)


def history_is_too_long() -> bool:
    """Whether a cut waits for nothing any more that the next run can repeat, such as a write."""
    return history_is_longer_than(LONG_HISTORY)


def epoch_now() -> int:
    """Return an epoch newer than every earlier one: milliseconds of the engine's clock."""
    return int(workflow.now().timestamp() * 1000)


def own_id() -> str:
    """Return an id for a step that no step of any other run has: what is sealed is bound to it.

    An answer that was given once, to this step of an earlier change, is none to this one.
    """
    return str(workflow.uuid4())
