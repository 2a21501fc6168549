"""Whose flows a gateway has: `penstock agent flows`, which reads logs beside the agent and needs nobody."""

from typing import Any

from activities.drivers.daemon.products import daemon_of
from activities.drivers.runtime.host.attribution import attributed_flows
from orchestrator.processes.agent_file import AgentSettings
from orchestrator.processes.gateway_folders import folders_of
from policies.attribution import Attributed


def flows_of(settings: AgentSettings) -> list[Attributed]:
    """Return every session of users that this host's logs tell of; the probe's are none of a user.

    Raises:
        BadInput: They do not tell whose it is, or one of them is not there.
    """
    folders = folders_of(settings.gateway, settings.root, daemon_of(settings.gateway.daemon))
    found = attributed_flows(folders, settings.front.logs, settings.front.proxies)
    return [one for one in found if one.held.user != settings.probe.user]


def row(flow: Attributed) -> dict[str, Any]:
    """Return a session as the command tells it."""
    held = flow.held
    return {
        "user": held.user,
        "from": str(flow.client) if flow.client is not None else None,
        "seen_as": str(held.source),
        "slot": held.slot,
        "vpn_address": held.vpn_address,
        "began": held.began.isoformat(),
        "ended": held.ended.isoformat() if held.ended is not None else None,
    }
