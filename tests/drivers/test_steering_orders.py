"""What every steering asks and remembers, without a gateway."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from activities.drivers.daemon.ocserv.fronted import behind_what_steers
from activities.drivers.daemon.port import Session
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.chroot import Chroot
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering.orders import SteeringOrders
from orchestrator.processes.agent_file import AgentSettings
from policies.model.errors import BadInput
from policies.model.fleet import Gateway, SteeringKind
from tests.drivers.gateway_lab import gateway

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"


def steered(by: SteeringKind) -> Gateway:
    return Gateway.model_validate(gateway().model_dump() | {"steering": by})


def orders(by: SteeringKind, folder: Path) -> SteeringOrders:
    async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
        return {}

    journal = Journal(folder / "journal.jsonl", HostBounds("gw-1"))
    return SteeringOrders(steered(by), journal, live, folder / "steering.json")


def test_the_permanent_slot_is_remembered_whatever_steers(tmp_path: Path) -> None:
    assert orders("nftables", tmp_path).permanent is None
    orders("nftables", tmp_path).remember("b")
    for by in ("nftables", "redirect"):
        after = orders(by, tmp_path)
        after.require_successor()
        assert after.permanent == "b"


@pytest.mark.parametrize(("before", "now"), [("nftables", "haproxy"), ("haproxy", "redirect")])
def test_what_could_not_reach_the_instances_of_before_does_not_begin(
    tmp_path: Path, before: SteeringKind, now: SteeringKind
) -> None:
    orders(now, tmp_path).require_successor()
    orders(before, tmp_path).remember("a")
    with pytest.raises(
        BadInput, match=f"serves by steering {before}, and its instances would not be reached"
    ):
        orders(now, tmp_path).require_successor()
    orders(before, tmp_path).require_successor()
    (tmp_path / "steering.json").unlink()  # as docs/steering.md sets a gateway up anew
    orders(now, tmp_path).require_successor()


def test_what_an_agent_of_before_remembered_was_said_by_nftables(tmp_path: Path) -> None:
    (tmp_path / "steering.json").write_text('{"serving": "a"}')
    orders("redirect", tmp_path).require_successor()
    with pytest.raises(BadInput, match="serves by steering nftables"):
        orders("haproxy", tmp_path).require_successor()
    for torn in ("", "[]", '{"serving": ["a"]}', '{"serving": "zz"}'):
        (tmp_path / "steering.json").write_text(torn)
        assert orders("redirect", tmp_path).permanent is None


def test_an_agents_file_that_redirects_names_what_haproxy_shows_to_users() -> None:
    content = yaml.safe_load((EXAMPLES / "agent.yaml").read_text())
    content["gateway"]["steering"] = "redirect"
    AgentSettings.model_validate(content)
    own = content | {"credentials": {**content["credentials"], "vpn-key": "file:/etc/vpn.key"}}
    del own["credentials"]["key"]
    with pytest.raises(ValueError, match="HAProxy has nothing to show to users: write key under credentials"):
        AgentSettings.model_validate(own)
    AgentSettings.model_validate(own | {"front": {"key": "vpn-key"}})
    own["gateway"] = own["gateway"] | {"steering": "nftables"}
    AgentSettings.model_validate(own)


def test_an_instance_listens_to_haproxy_alone_where_that_carries_its_users(tmp_path: Path) -> None:
    config = "auth = plain\nlisten-host = 10.77.0.1\ntcp-port = 4431\n"

    def written(by: SteeringKind) -> str:
        own = steered(by)
        return behind_what_steers(config, Chroot(own, own.slots[0], tmp_path, tmp_path, tmp_path))

    assert written("nftables") == written("redirect") == config
    assert written("haproxy").splitlines() == [
        "auth = plain",
        "tcp-port = 4431",
        "listen-host = 127.0.0.1",
        "udp-listen-host = 0.0.0.0",
        "listen-proxy-proto = true",
    ]
