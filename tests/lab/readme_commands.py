"""Every command of the README's table: typed in a lab with users, or named with the test that runs it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Found = dict[str, str]
"""What was said before and later commands name: `folder`, `newer` (a sound release), a plan, a change."""

ELSEWHERE = {
    "keys api": "tests/service/test_sealed_orders.py",
    "keys relay": "tests/relay/test_enrolment.py",
    "diff": "tests/service/test_desired_state.py",
    "apply": "tests/service/test_desired_state.py",
    "unpin": "tests/service/test_desired_state.py",
    "window list": "tests/service/test_window_commands.py",
    "window next": "tests/service/test_window_commands.py",
    "window check": "tests/service/test_window_commands.py",
    "window freeze list": "tests/service/test_window_commands.py",
    "window freeze add": "tests/service/test_window_commands.py",
    "window freeze import": "tests/service/test_window_commands.py",
    "window freeze remove": "tests/service/test_window_commands.py",
    "login": "tests/service/test_people.py",
    "logout": "tests/service/test_people.py",
    "release tree": "tests/drivers/test_release_tree.py",
    "release image": "tests/drivers/test_release_image.py",
    "release build": "tests/service/test_release_commands.py",
    "release index": "tests/service/test_release_commands.py",
    "release refresh": "tests/drivers/test_index_renewal.py",
    "release sign": "tests/service/test_release_commands.py",
    "release push": "tests/drivers/test_release_image.py",
    "release add": "tests/service/test_release_commands.py",
    "release verify": "tests/service/test_release_commands.py",
    "release yank": "tests/service/test_release_commands.py",
    "verify-bundle": "tests/service/test_release_commands.py",
    "audit reverify": "tests/service/test_release_commands.py",
    "drill record": "tests/service/test_drills.py",
    "handover begin": "tests/service/test_handovers.py",
    "handover accept": "tests/service/test_handovers.py",
    "handover decline": "tests/service/test_handovers.py",
    "handover withdraw": "tests/service/test_handovers.py",
    "handover list": "tests/service/test_handovers.py",
    "monitoring targets": "tests/service/test_monitoring_kit.py",
    "judge replay": "tests/unit/test_judge_commands.py",
    "judge backtest": "tests/drivers/test_prometheus_history.py",
    "judge calibrate": "tests/drivers/test_prometheus_history.py",
    "serve": "tests/service/test_bad_inputs.py",
    "api": "tests/service/test_bad_inputs.py",
    "relay": "tests/relay/test_processes.py",
    "agent break-glass": "tests/drivers/test_host_orders_real.py",
    "agent flows": "tests/service/test_agent_flows.py",
    "agent certify": "tests/drivers/test_certificate_renewal.py",
    "agent enrol": "tests/relay/test_enrolment.py",
    "agent renew": "tests/relay/test_enrolment.py",
    "cluster check": "tests/cluster/driver/test_driver_process.py",
    "cluster enrol": "tests/cluster/driver/test_driver_process.py",
    "cluster renew": "tests/cluster/driver/test_driver_process.py",
    "cluster run": "tests/cluster/driver/test_driver_process.py",
    "worker": "tests/service/test_bad_inputs.py",
}
"""Commands that need what a lab has not, each with the test that runs it."""


@dataclass(frozen=True)
class Typed:
    """One command, how it may end, and what is to be remembered of what it says."""

    command: str
    words: Callable[[Found], tuple[str, ...]] = lambda _: ()
    codes: tuple[int, ...] = (0,)
    remembers: Mapping[str, str] | None = None
    """Names, each with a pattern whose first group is what they stand for from now on."""


def words(*given: str) -> Callable[[Found], tuple[str, ...]]:
    """Return these words, with what was found in their places."""
    return lambda found: tuple(word.format(**found) for word in given)


WHY = ("--reason", "as the README has it")
STORY = (
    Typed("whoami"),
    Typed("page"),
    Typed("fleet list", remembers={"fleet": r"^(\S+)$"}),
    Typed("fleet show"),
    Typed("fleet drift"),
    Typed("doctor", codes=(0, 10)),
    Typed("check"),
    Typed("runbook list"),
    Typed("runbook show", words("held-decide", "{fleet}")),
    Typed("release list"),
    Typed("release show", words("{newer}")),
    Typed("sessions"),
    Typed("gateway quarantine", words("{fleet}", "gw-3", *WHY)),
    Typed("gateway return", words("{fleet}", "gw-3", *WHY)),
    Typed("gateway certificates", words("{fleet}")),
    Typed("gateway enrol", words("{fleet}", "gw-3")),
    Typed("gateway revoke", words("{fleet}", "gw-99", *WHY)),  # one of the lab's would be silent from now on
    Typed(
        "plan", words("--to", "{newer}", "-o", "json"), remembers={"plan": r'"digest": "sha256:([0-9a-f]+)"'}
    ),
    Typed("approve", words("--plan", "{plan}", *WHY), codes=(4,)),
    Typed("upgrade start", words("--to", "{newer}", "--plan", "{plan}", *WHY)),
    Typed("hold", words(*WHY)),
    Typed("status", codes=(6,)),
    Typed("resume", words(*WHY)),
    Typed("promote", words(*WHY), codes=(4, 9)),
    Typed("reject", words(*WHY), codes=(4, 9)),
    Typed("rollback", words(*WHY, "--wait"), codes=(3,)),
    Typed("watch", codes=(3,)),
    Typed("abort", words(*WHY), codes=(9,)),
    Typed("drains"),
    Typed("drain extend", words("--by", "10m", *WHY), codes=(0, 9)),
    Typed("drain end", words(*WHY), codes=(0, 9)),
    Typed("history", words("-o", "name"), remembers={"change": r"^(\S+)"}),
    Typed("explain", words("{change}")),
    Typed("report show", words("{change}", "--html", "--write", "{folder}/report.html")),
    Typed("report cause", words("{change}", "--text", "as the README has it")),
    Typed(
        "report follow-up add",
        words("{change}", "--text", "as the README has it", "--owner", "ada", "--due", "2030-12-31"),
    ),
    Typed("report follow-up list"),
    Typed("report follow-up done", words("{change}", "1")),
    Typed("snapshot list", words("-o", "json"), remembers={"snapshot": r'"digest": "(sha256:[0-9a-f]+)"|$'}),
    Typed("snapshot get", words("sha256:0123456789ab"), codes=(2,)),
    Typed("fleet adopt", words("{fleet}", "--dry-run")),
    Typed("fleet hand-back", words("{fleet}", "nobody", *WHY), codes=(2,)),
    Typed("fleet install", words("--to", "{newer}"), codes=(0, 5, 9)),
    Typed("credentials reload", words(*WHY), codes=(0, 9)),
    Typed("credentials reload", words("--if-changed", *WHY)),
    Typed("config plan", codes=(0, 5)),
    Typed("config start", words(*WHY), codes=(0, 5, 9)),
    Typed("token create", words("robot", "--grant", "{fleet}=ci")),
    Typed("token list"),
    Typed("token revoke", words("robot", *WHY)),
    Typed("chat run", words("{folder}/no-chat.yaml"), codes=(2,)),
    Typed("chat list"),
    Typed("chat unlink", words("chat.example.org", "@nobody:chat.example.org", *WHY)),
    Typed("audit list"),
    Typed("audit verify"),
    Typed("audit export"),
    Typed("audit key"),
    Typed("judge lint", words("deploy/prometheus/gates.yaml")),
    Typed("ledger backup", words("{folder}/backup.jsonl")),
    Typed("ledger restore", words("{folder}/backup.jsonl"), codes=(2, 9)),
    Typed("ledger rebuild", words(*WHY), codes=(9,)),
    Typed("notice list"),
    Typed("notice test", words("nobody"), codes=(2,)),
    Typed("notice acknowledge", words("nothing-of-that-key"), codes=(2,)),
    Typed("drill list"),
    Typed("drill run", words("nothing-of-that-name"), codes=(2,)),
    Typed("drill history"),
    Typed("agent run", words("--config", "{folder}/no-agent.yaml"), codes=(2,)),
    Typed("exporter", words("{folder}/no-agent.yaml"), codes=(2,)),
)


def of_the_readme() -> list[str]:
    """Return the commands of the README's table."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    return re.findall(r"^\| `penstock ([^`]+)` \|", text, re.MULTILINE)
