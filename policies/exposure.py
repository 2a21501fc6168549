"""Exposure: whether an instance that was tested may get users."""

from collections.abc import Mapping, Sequence

from policies.model.release_tests import Asked, Finding, Measurement, Method, Outcome, ReleaseTests
from policies.model.value import Value

BOTH_SESSIONS = 2
"""Tunnels of the functional tests: with UDP beside TLS, and over TLS alone."""

NAMED = 3


class Limit(Value):
    """What a test has to keep to, alone or as a part of what the old instance does."""

    least: float | None = None
    most: float | None = None
    compared: bool = False
    optional: bool = False
    """Whether a daemon may do without it: where the old one does, the new one may, too."""

    def __str__(self) -> str:
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{bound} of the old instance's" if self.compared else bound

    def keeps(self, value: float) -> bool:
        """Return whether the value is within it."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


class Exposure(Value):
    """What all tests of an instance say together, in a sentence that is never empty."""

    outcome: Outcome
    sentence: str


def findings_of(tests: ReleaseTests, measured: Sequence[Measurement], method: Method) -> tuple[Finding, ...]:
    """Return a finding for every test that is asked for, of those that are made by this method.

    A test of which the host says nothing was not made: what is missing is never a pass.
    """
    found = {one.test: one for one in measured}
    limits = _limits(tests)
    return tuple(_finding(test, limits[test], found.get(test)) for test in tests.asked(method))


def exposure(findings: Sequence[Finding]) -> Exposure:
    """Return whether the instance may get users: one failure forbids it, one unknown has it wait."""
    failed = [one for one in findings if one.outcome is Outcome.FAILED]
    if failed:
        return Exposure(outcome=Outcome.FAILED, sentence=_spoken(failed))
    unknown = [one for one in findings if one.outcome is Outcome.UNKNOWN]
    if unknown or not findings:
        return Exposure(outcome=Outcome.UNKNOWN, sentence=_spoken(unknown) or "no test was made")
    return Exposure(outcome=Outcome.PASSED, sentence=f"passed {len(findings)} tests")


def _limits(tests: ReleaseTests) -> Mapping[Asked, Limit]:
    none, lost = Limit(most=0), Limit(most=tests.pings_lost)
    limits = dict.fromkeys(Asked, none) | {
        Asked.LOGIN: Limit(least=BOTH_SESSIONS),
        Asked.PINGS_LOST: lost,
        Asked.FULL_SIZE_LOST: lost,
    }
    if tests.mirror is not None:
        limits |= {
            Asked.MIRROR_REFUSED: Limit(most=tests.mirror.refused),
            Asked.MIRROR_SECONDS: Limit(most=tests.mirror.seconds, compared=True),
        }
    if tests.load is not None:
        limits |= {
            Asked.THROUGHPUT: Limit(least=tests.load.throughput, compared=True),
            Asked.CPU: Limit(most=tests.load.cpu, compared=True),
            Asked.HANDSHAKES: Limit(least=tests.load.handshakes, compared=True),
            Asked.RESUMED: Limit(least=tests.load.resumed, compared=True, optional=True),
        }
    return limits


def _finding(test: Asked, limit: Limit, found: Measurement | None) -> Finding:
    said = found.said if found is not None else "the host's agent does not know this test: upgrade it"
    measured = found.measured if found is not None else None
    control = found.control if found is not None and limit.compared else None
    return Finding(
        test=test,
        outcome=_outcome(limit, measured, control),
        measured=measured,
        control=control,
        limit=str(limit),
        said=said,
    )


def _outcome(limit: Limit, measured: float | None, control: float | None) -> Outcome:
    if measured is None or (limit.compared and control is None):
        return Outcome.UNKNOWN
    if limit.compared:
        if not control:  # an old instance that does nothing can be no measure
            return Outcome.PASSED if limit.optional and measured == control else Outcome.UNKNOWN
        measured /= control
    return Outcome.PASSED if limit.keeps(measured) else Outcome.FAILED


def _spoken(findings: Sequence[Finding]) -> str:
    said = [f"{one.test} ({_shown(one)}{one.limit}): {one.said}" for one in findings[:NAMED]]
    more = f"; and {len(findings) - NAMED} more" if len(findings) > NAMED else ""
    return "; ".join(said) + more


def _shown(finding: Finding) -> str:
    if finding.measured is None:
        return ""
    beside = f" beside {finding.control:g}" if finding.control is not None else ""
    return f"{finding.measured:.4g}{beside}, "
