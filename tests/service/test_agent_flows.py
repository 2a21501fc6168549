"""`penstock agent flows` on a gateway's host, whose logs are those of a real OpenVPN behind a real nginx."""

import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

AT = datetime(2026, 11, 26, 20, 43, 27, tzinfo=UTC)
HERE = f"{AT.astimezone():%Y/%m/%d %H:%M:%S}"
BEGAN = f"""\
{HERE} [info] 12374#12374: *1 udp client 203.0.113.7:51382 connected to 0.0.0.0:1194
{HERE} [info] 12374#12374: *1 udp proxy 192.0.2.5:34035 connected to 192.0.2.11:1194
"""
WHO = "{name}/192.0.2.5:{port}"
INSTANCE = f"2026-11-26 20:43:27 us=277685 {WHO} MULTI: primary virtual IP for {WHO}: 10.80.0.{{last}}\n"


def gateway(folder: Path, daemon: str = "openvpn", **front: Any) -> Path:
    slots = [
        {"name": name, "port": 4431 + number, "device": f"vpn{name}", "pool4": f"10.80.{number}.0/24"}
        for number, name in enumerate("ab")
    ]
    content = {
        "gateway": {
            "name": "gw-1",
            "fleet": "edge",
            "daemon": daemon,
            "addresses": ["192.0.2.11"],
            "slots": slots,
        },
        "root": str(folder / "root"),
        "product": daemon,
        "channel": "stable",
        "trust": "/nowhere/trust.yaml",
        "temporal_address": "127.0.0.1:1",
        "probe": {
            "user": "probe",
            "certificate": "/x.pem",
            "key": "/x.key",
            "password": "/x",
            "authority": "/a.pem",
        },
        "front": front,
    }
    config = folder / "agent.yaml"
    config.write_text(json.dumps(content))
    for name in "ab":
        (folder / "root/slots" / name).mkdir(parents=True)
    return config


def asked(config: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "orchestrator", "agent", "flows", "--config", str(config), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_session_is_told_with_user_real_address_and_slot_also_from_what_was_rotated(
    tmp_path: Path,
) -> None:
    began = tmp_path / "began.log"
    config = gateway(tmp_path, proxies=["192.0.2.5"], logs=[str(began)])
    began.write_text("")
    (tmp_path / "began.log.2.gz").write_bytes(gzip.compress(BEGAN.encode()))
    (tmp_path / "root/slots/a/log").write_text(INSTANCE.format(name="ana", port=34035, last=2))
    probe = INSTANCE.format(name="probe", port=4, last=9)
    (tmp_path / "root/slots/b/log").write_text(INSTANCE.format(name="ben", port=7, last=3) + probe)
    done = asked(config, "-o", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["data"]
    assert [(row["user"], row["from"], row["slot"], row["seen_as"]) for row in rows] == [
        ("ana", "203.0.113.7:51382", "a", "192.0.2.5:34035"),
        ("ben", None, "b", "192.0.2.5:7"),
    ]
    assert rows[0]["vpn_address"] == "10.80.0.2"
    assert (rows[0]["began"], rows[0]["ended"]) == (AT.isoformat(), None)
    assert "203.0.113.7:51382" in asked(config).stdout


def test_a_log_that_is_not_there_is_no_proof_of_nobody(tmp_path: Path) -> None:
    done = asked(gateway(tmp_path, proxies=["192.0.2.5"], logs=[str(tmp_path / "none.log")]))
    assert done.returncode != 0
    assert f"{tmp_path}/none.log is not there" in done.stderr


def test_proxies_are_refused_where_users_are_found_by_their_address(tmp_path: Path) -> None:
    done = asked(gateway(tmp_path, "ocserv", proxies=["192.0.2.5"]))
    assert done.returncode != 0
    assert "front.proxies is for openvpn" in done.stderr


def test_a_daemon_whose_log_does_not_tell_is_named(tmp_path: Path) -> None:
    done = asked(gateway(tmp_path, "ocserv"))
    assert done.returncode != 0
    assert "the log of ocserv is not read" in done.stderr
