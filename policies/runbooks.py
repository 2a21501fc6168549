"""Runbooks: which page of `runbooks/` fits a state, a verdict or a refusal, and what one sees who needs it.

Whoever tells people that something waits for them names the page of this table: status and page,
`penstock explain` and notices. A test compares the table with the pages that there are.
"""

from collections.abc import Mapping

PAGES: Mapping[str, str] = {
    "agent-silent": "agents that do not answer",
    "agent-stolen": "a gateway's host, or its certificate, was stolen",
    "audit-broken": "`penstock audit verify` says that the record is not whole",
    "balancer-lies": "steering refuses a change, or new sessions go where nobody sent them",
    "canary-rejected": "a rollout went back by itself, exit 3",
    "certificate-ends": "a certificate ends",
    "chat-down": "the chat bot does not answer, or somebody's chat account was stolen",
    "checkpoint-old": "the audit record has no new checkpoint",
    "control-host-lost": "the control host is gone with its disk",
    "disk-full": "a disk is full, or the database refuses to write",
    "drain-past-deadline": "an old instance does not get empty",
    "emergency-patch": "a release has to go out now, outside of every window",
    "gateway-unwell": "users of one gateway fail, are slow or lose packets; alerts `Gateway…`",
    "held-decide": "`HELD`: a change waits for a person",
    "host-refuses": "a host refuses an order by its own rules",
    "index-ends": "the index of a channel ends",
    "known-good-lost": "a gateway has no known-good, or it does not start any more",
    "ledger-lost": "the ledger is gone, and there is no backup",
    "ledger-restore": "the ledger is gone or broken, and there is a backup",
    "metrics-blind": "verdict `metrics unavailable`",
    "node-event": "a gateway's node is cordoned, not ready, lost or has no pod, or its driver is silent",
    "penstock-upgrade": "penstock itself is to be upgraded",
    "removal": "penstock is to leave a gateway, or altogether",
    "rollback-incomplete": "`ROLLBACK INCOMPLETE`, exit 7",
    "rollback-waits": "a rollback waits for a second person",
    "settings-stuck": "settings or pools of `fleet.yaml` do not get to gateways, or went back",
    "shared-outage": "logins fail on every gateway at once while a change is under way",
    "signature-refused": "a release is refused, exit 5",
    "signer-compromised": "a key that signs releases was stolen",
    "tunnel-passes-nothing": "users are logged in, and nothing passes through their tunnels",
    "user-locked-out": "a user is to be kept out: a stolen account, or a person who left",
    "window-closing": "a window closes, or a freeze begins, while a change is under way",
    "worker-or-temporal-down": "commands do not answer, or answer that an order is stored",
    "wrong-version-running": "verdict `conflicting` of the gate `identity`, or code that was not signed",
}
"""Every page that there is, by its name without ending, each with what one sees who needs it."""

_OF_WORDS: Mapping[str, str] = {
    "held": "held-decide",
    "waiting_for_window": "window-closing",
    "not_switched": "gateway-unwell",
    "metrics_unavailable": "metrics-blind",
    "not_enough_data": "held-decide",
    "conflicting": "held-decide",
    "rolled_back": "canary-rejected",
    "rollback_incomplete": "rollback-incomplete",
    "unhealthy": "held-decide",
    "harm": "held-decide",
    "hard": "canary-rejected",
    "stuck": "worker-or-temporal-down",
    "older": "ledger-restore",
    "silent": "agent-silent",
    "quarantined": "gateway-unwell",
    "ejected": "gateway-unwell",
    "not_taken_back": "gateway-unwell",
    "drain_held": "drain-past-deadline",
    "room_silent": "chat-down",
    "rollback_waits": "rollback-waits",
    "ForeignOrder": "host-refuses",
    "BeyondHostLimits": "host-refuses",
    "ChangeEnded": "host-refuses",
    "InstanceGone": "canary-rejected",
    "LeaseLapsed": "worker-or-temporal-down",
    "RunningMismatch": "wrong-version-running",
    "Unavailable": "worker-or-temporal-down",
    "NotOrdered": "worker-or-temporal-down",
}
"""The page of each outcome, verdict, state that waits, and refusal that has one."""

OF_SIGNATURES = "signature-refused"
"""The page of every refusal of a release: it could not be shown to come, unchanged, from the right people."""


def runbook_of(word: str) -> str | None:
    """Return the page of an outcome, a verdict, a state that waits or a refusal; None where there is none."""
    return _OF_WORDS.get(word)


def runbook_of_waiting(verdict: str | None = None, worst_gate: str | None = None) -> str:
    """Return the page of a change that waits for a person after a decision.

    Harm that waits for a person has the page of a held change: that of harm is for a change that went back.

    Args:
        verdict: What the newest decision rests on, None before the first.
        worst_gate: The gate that decided it, where one did.
    """
    if verdict == "conflicting" and worst_gate == "identity":
        return _OF_WORDS["RunningMismatch"]
    if verdict == "metrics_unavailable" and worst_gate == "lease":
        return _OF_WORDS["LeaseLapsed"]
    return _OF_WORDS["metrics_unavailable" if verdict == "metrics_unavailable" else "held"]
