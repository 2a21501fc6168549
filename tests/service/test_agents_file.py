"""What an agent's own file says of its probe and of what is before its instances fits, or is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from orchestrator.processes.agent_file import AgentSettings

EXAMPLE = yaml.safe_load((Path(__file__).parents[2] / "deploy/examples/agent.yaml").read_text())
BY_CERTIFICATE = {"certificate": "/etc/penstock/probe.pem", "key": "/etc/penstock/probe.key"}


def said(*, gateway: dict[str, Any] | None = None, probe: dict[str, Any] | None = None, **other: Any) -> None:
    content = EXAMPLE | {
        "gateway": EXAMPLE["gateway"] | (gateway or {}),
        "probe": EXAMPLE["probe"] | (probe or {}),
    }
    AgentSettings.model_validate(content | other)


def test_logs_of_an_nginx_are_refused_without_the_addresses_from_which_it_carries_users() -> None:
    openvpn, logs = {"daemon": "openvpn"}, ["/var/log/nginx/vpn-began.log"]
    said(gateway=openvpn, probe=BY_CERTIFICATE, front={"logs": logs, "proxies": ["192.0.2.5"]})
    with pytest.raises(ValidationError, match=r"write its addresses as front\.proxies, or leave logs out"):
        said(gateway=openvpn, probe=BY_CERTIFICATE, front={"logs": logs})


def test_options_of_the_probe_are_refused_without_the_files_that_they_name() -> None:
    options = {"options": ["tls-auth shared 1", "comp-lzo no"]}
    said(probe=options | {"files": {"shared": "/etc/penstock/tls-auth.key"}})
    with pytest.raises(ValidationError, match=r"options name shared; write `files: \{shared: PATH\}` beside"):
        said(probe=options)


def test_whoever_left_the_daemon_out_is_told_which_one_is_meant_then() -> None:
    without_password = {"password": None} | BY_CERTIFICATE
    with pytest.raises(
        ValidationError,
        match=r"nobody could probe ocserv: .*; gateway\.daemon is ocserv \(also when left out\)",
    ):
        said(probe=without_password)
    with pytest.raises(
        ValidationError,
        match=r"write `certificate` and `key`, or `password`, .*; gateway\.daemon is openvpn \[",
    ):
        said(gateway={"daemon": "openvpn"}, probe={"password": None})
    said(gateway={"daemon": "openvpn"})  # whose users have passwords alone


def test_the_probe_of_a_gateway_with_camouflage_has_a_file_with_its_secret() -> None:
    """Case 18: no key of the file could say it."""
    said(probe={"camouflage": "/etc/penstock/camouflage"})
