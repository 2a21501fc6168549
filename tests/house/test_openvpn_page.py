"""What docs/openvpn.md has people write is taken."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.drivers.daemon.openvpn.config import options_in
from activities.drivers.daemon.openvpn.template import require_template
from orchestrator.processes.agent_file import ProbeSettings
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.release_tests import Method

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "openvpn.md").read_text()
BESIDE = {"verb 3", "proto tcp-server"}
"""What the page says beside the options of the example."""


def shown(heading: str) -> dict[str, Any]:
    section = PAGE.partition(f"## {heading}")[2]
    (example,) = re.findall(r"^```yaml\n(.+?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    return dict(yaml.safe_load(example))


def test_the_fleet_of_the_page_is_one_and_its_profiles_are_tried() -> None:
    fleet = Fleet.model_validate(shown("fleet.yaml"))
    assert fleet.tests is not None
    assert "profiles" in fleet.tests.asked(Method.TRIED)


def test_every_file_that_a_profile_names_is_named_in_the_agents_file_too() -> None:
    fleet, agent = Fleet.model_validate(shown("fleet.yaml")), shown("agent.yaml")
    probe = ProbeSettings.model_validate(agent["probe"])
    assert fleet.tests is not None
    options = [*probe.options, *(option for told in fleet.tests.profiles.values() for option in told)]
    named = {option.split()[1] for option in options if option.startswith(("tls-auth", "tls-crypt"))}
    assert named == {*probe.files}
    assert agent["product"] == agent["gateway"]["daemon"] == fleet.product


def test_what_the_page_says_of_the_template_is_so() -> None:
    text = (ROOT / "deploy/examples/openvpn.conf.template").read_text()
    require_template(text, "openvpn.conf.template")
    said = {f"{option.name} {option.value}".strip() for option in options_in(text)}
    section = (
        PAGE.partition("## The template")[2].partition("\n## ")[0].partition("\nWith `auth-gen-token`")[0]
    )
    promised = re.findall(r"`([a-z-]+ [^`]+)`", section)
    assert len(promised) > 5
    assert [one for one in promised if one not in said | BESIDE and "tls-auth" not in one] == []


def test_the_example_with_the_tokens_of_the_page_is_taken_and_without_their_secret_refused() -> None:
    text = (ROOT / "deploy/examples/openvpn.conf.template").read_text()
    (secret,) = re.findall(r"has `(auth-gen-token-secret [^`]+)`", PAGE)
    require_template(f"{text}auth-gen-token\n{secret}\n", "openvpn.conf.template")
    with pytest.raises(BadInput, match="auth-gen-token-secret"):
        require_template(f"{text}auth-gen-token\n", "openvpn.conf.template")


def test_the_example_with_the_tls_auth_of_the_page_is_taken_too() -> None:
    text = (ROOT / "deploy/examples/openvpn.conf.template").read_text()
    added = re.findall(r"add `(tls-auth [^`]+)`", PAGE)
    assert f"# {added[0]}" in text
    require_template(text.replace(f"# {added[0]}", added[0]), "openvpn.conf.template")


def test_the_example_by_tcp_is_taken_without_what_its_comment_names() -> None:
    text = (ROOT / "deploy/examples/openvpn.conf.template").read_text()
    ((transport, *without),) = re.findall(
        r"^# By TCP: `(.+)`, without `(.+)` and `(.+)`\.$", text, re.MULTILINE
    )
    kept = [line for line in text.splitlines() if line.split(" ")[0] not in without]
    require_template("\n".join(kept).replace("proto udp", transport), "openvpn.conf.template")


def test_the_example_with_the_revoked_certificates_of_the_page_is_taken_too() -> None:
    text = (ROOT / "deploy/examples/openvpn.conf.template").read_text()
    (line,) = re.findall(r"`(crl-verify [^`]+)`", PAGE.partition("## The template")[0])
    assert f"# {line}" in text
    require_template(text.replace(f"# {line}", line), "openvpn.conf.template")


def test_every_profile_of_the_page_can_reach_a_gateway_that_asks_for_what_its_probe_has() -> None:
    fleet, probe = Fleet.model_validate(shown("fleet.yaml")), shown("agent.yaml")["probe"]
    assert fleet.tests is not None
    for options in fleet.tests.profiles.values():
        assert {*probe["options"]} <= {*options}
