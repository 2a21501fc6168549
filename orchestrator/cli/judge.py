"""Commands about the judge: check a policy, and see what it would have done to past windows."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from activities.files import load
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from policies.judge.counts import Series
from policies.judge.offline.backtest import ticks
from policies.judge.offline.predict import predict, what_logins_prove
from policies.judge.offline.replay import GateCalibration, Placebo, Replayed, calibrate, replay
from policies.judge.window import Record
from policies.model.errors import BadInput
from policies.model.gates import GatePolicy, lint
from policies.model.verdict import Action, Cohorts

app = group("Check gate policies, and what they would have done.")

PolicyFile = Annotated[Path, typer.Option("--policy", exists=True, dir_okay=False, help="a gates.yaml")]
Prometheus = Annotated[
    str | None, typer.Option(help="address of Prometheus, http://host:port; the one of the settings without")
]
Instances = Annotated[list[str], typer.Option(help="instance label, host:port; may be given again")]
DIFFERS = 10
"""Exit code when a recorded window would have ended otherwise."""


@app.command("lint")
def check(
    policy: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a gates.yaml")],
    attempts: Annotated[float, typer.Option(help="first attempts a minute on one gateway")] = 30.0,
    controls: Annotated[int, typer.Option(help="gateways beside the canary")] = 3,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check a gate policy, and say how long it needs to decide at this traffic."""
    gates = _read_policy(policy)
    predictions = predict(gates, attempts, controls=controls)
    found = [prediction.model_dump(mode="json") for prediction in predictions]

    def table() -> None:
        say(f"{gates.name} version {gates.version}, {len(gates.gates)} gates, {gates.digest[:19]}: sound")
        for one in predictions:
            say(
                f"{one.gate}: healthy after {_spoken(one.healthy_after)}, a 20-point drop rolled back "
                f"after {_spoken(one.rollback_after)} (medians, {attempts:g} a minute)"
            )
            if one.advice:
                say(one.advice)
        say(*(proof.sentence for proof in what_logins_prove(gates, controls=controls)))

    document = {"name": gates.name, "version": gates.version, "digest": gates.digest, "predictions": found}
    emit(output, "GatePolicy", document, table, names=[gates.digest])


@app.command("replay")
def replay_record(
    record: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a recorded window")],
    policy: Annotated[
        Path | None, typer.Option("--policy", exists=True, dir_okay=False, help="another gates.yaml")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Fold a recorded window again, under its own policy and under another; exit 10 when they differ."""
    recorded = _read_record(record)
    was = _replayed(recorded, recorded.policy)
    other = _read_policy(policy) if policy else recorded.policy
    would = _replayed(recorded, other)
    lines = [f"recorded policy: {_told(was)}", *([f"{policy.name}: {_told(would)}"] if policy else [])]
    document = {"was": was.model_dump(mode="json"), "would": would.model_dump(mode="json")}
    emit(output, "Replay", document, lambda: say(*lines))
    if was.decision.action is not would.decision.action:
        raise typer.Exit(DIFFERS)


@app.command()
def backtest(
    policy: PolicyFile,
    canary: Instances,
    control: Instances,
    start: Annotated[datetime, typer.Option("--from", help="when the wave was switched, UTC")],
    minutes: Annotated[float, typer.Option(help="how long it is watched")] = 30.0,
    prometheus: Prometheus = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Judge a past upgrade from the history in Prometheus, as if it had been watched live."""
    gates = _read_policy(policy)
    cohorts = Cohorts(canary=tuple(canary), control=tuple(control))
    began = _utc(start)
    history = asyncio.run(_history(prometheus, gates, [*canary, *control], began, minutes * 60))
    watched = ticks(gates, cohorts, history, began, began + minutes * 60)
    found = replay(gates, gates.window, cohorts, watched)
    if found is None:
        raise BadInput("no tick lies in this time; give --minutes")
    emit(output, "Backtest", found.model_dump(mode="json"), lambda: say(_told(found)))


@app.command("calibrate")
def calibrate_gates(
    policy: PolicyFile,
    gateway: Instances,
    days: Annotated[float, typer.Option(help="how far back")] = 7.0,
    minutes: Annotated[float, typer.Option(help="length of a placebo window")] = 30.0,
    until: Annotated[
        datetime | None, typer.Option("--to", help="where the past ends, UTC; now when left out")
    ] = None,
    prometheus: Prometheus = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Pretend each gateway was a canary in every window of the past, and count the false rollbacks."""
    if len(gateway) < 2:  # noqa: PLR2004 - a canary and a control
        raise BadInput("calibration compares gateways; give --gateway at least twice")
    gates = _read_policy(policy)
    placebos = asyncio.run(_placebos(prometheus, gates, gateway, days, minutes * 60, _utc(until)))
    found = calibrate(gates, placebos)
    rows = [one.model_dump(mode="json") | {"may_roll_back": one.may_roll_back} for one in found]
    emit(output, "Calibration", rows, lambda: _show_calibration(found), rows=rows)


async def _placebos(
    url: str | None, gates: GatePolicy, gateways: Sequence[str], days: float, seconds: float, end: float
) -> list[Placebo]:
    """Read window by window; a window is counted once and each gateway plays the canary in it."""
    placebos: list[Placebo] = []
    for back in range(int(days * 86400 // seconds), 0, -1):
        start = end - back * seconds
        history = await _history(url, gates, gateways, start, seconds)
        anyone = Cohorts(canary=(gateways[0],), control=tuple(gateways[1:]))
        counted = tuple(ticks(gates, anyone, history, start, start + seconds))
        for one in gateways:
            others = tuple(other for other in gateways if other != one)
            placebos.append(Placebo(Cohorts(canary=(one,), control=others), counted))
    return placebos


async def _history(
    url: str | None, gates: GatePolicy, instances: Sequence[str], start: float, seconds: float
) -> dict[str, tuple[Series, ...]]:
    """Read everything the gates ask of this time, with the baseline before it."""
    from activities.drivers.metrics.prometheus import PrometheusSource  # noqa: PLC0415
    from orchestrator.prometheus import prometheus_of  # noqa: PLC0415
    from orchestrator.settings import read_settings  # noqa: PLC0415

    wanted = {gates.presence, gates.identity.value, *(s for gate in gates.gates for s in gate.selectors)}
    lookback = timedelta(seconds=seconds) + gates.baseline + gates.fresh_within
    end = datetime.fromtimestamp(start + seconds, UTC)
    settings = read_settings(lenient=True)
    prometheus = prometheus_of(settings.model_copy(update={"prometheus_url": url}) if url else settings)

    async def everything(source: PrometheusSource) -> dict[str, tuple[Series, ...]]:
        return {name: await source.raw(name, instances, end, lookback) for name in sorted(wanted)}

    try:
        return await prometheus.whole(everything)
    finally:
        prometheus.close()


def _utc(given: datetime | None) -> float:
    """Return seconds since the epoch of a time given in UTC, or of now."""
    moment = given or datetime.now(UTC)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _read_policy(path: Path) -> GatePolicy:
    policy = load(path, GatePolicy)
    problems = lint(policy)
    if problems:
        raise BadInput(f"{path}: {problems[0]}")
    return policy


def _read_record(path: Path) -> Record:
    from activities.drivers.metrics.records import read_record  # noqa: PLC0415

    return read_record(path)


def _replayed(recorded: Record, policy: GatePolicy) -> Replayed:
    window = recorded.window if policy == recorded.policy else policy.window
    found = replay(policy, window, recorded.cohorts, recorded.ticks)
    if found is None:
        raise BadInput(f"the record of {recorded.rollout} wave {recorded.wave} holds no ticks")
    return found


def _told(found: Replayed) -> str:
    action = found.decision.action.value.replace("_", " ")
    return f"{action} after {found.seconds:.0f} s and {found.ticks} ticks: {found.decision.reason}"


def _show_calibration(found: Sequence[GateCalibration]) -> None:
    lines = [
        (
            one.gate,
            str(one.windows),
            f"{one.rollbacks} ({one.rollback_share:.2%})",
            str(one.proven),
            f"{one.bad} of {one.events}",
            f"{one.spread:.4f}",
            Action.ROLL_BACK.value.replace("_", " ") if one.may_roll_back else "hold only",
        )
        for one in found
    ]
    columns = ("GATE", "WINDOWS", "ROLLED BACK", "PROVEN", "BAD OF EVENTS", "SPREAD", "MAY")
    print_table(columns, lines, "No gate was seen.")


def _spoken(length: timedelta | None) -> str:
    return "never" if length is None else f"{length.total_seconds():.0f} s"
