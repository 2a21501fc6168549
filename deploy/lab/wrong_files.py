"""Files of a lab that say something else than they ought to, and a chat account in the wrong hands."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import yaml

from deploy.lab import credentials
from deploy.lab.lab import FLEET, Lab
from deploy.lab.releases import BUILD

NO_FLEET = "forgotten"
WORKSPACE = "chat.example.org"
ANA = 61_001
"""A user of the host by number, which no host has: by it people.yaml knows who the chat account is."""
STRICT_LEASE = "5s"
"""Less than any plan of the lab asks a host for."""


@contextmanager
def signer_revoked(lab: Lab) -> Iterator[None]:
    """Take the trust away from whoever built every release, on the orchestrator and on every host."""
    path = lab.folder / "releases" / "trust.yaml"
    before = path.read_text()
    _replace(path, json.dumps(json.loads(before) | {"revoked": {"identities": [BUILD]}}, indent=2))
    try:
        yield
    finally:
        _replace(path, before)


@contextmanager
def strict_host(lab: Lab, gateway: str) -> Iterator[None]:
    """Have the host's own file bear no lease of the length that plans ask for; its agent is started anew."""
    path = lab.folder / "etc" / "agents" / f"{gateway}.yaml"
    before = path.read_text()
    agent = lab.agents[gateway]
    agent.stop()
    path.write_text(
        yaml.safe_dump(yaml.safe_load(before) | {"limits": {"longest_lease": STRICT_LEASE}}, sort_keys=False)
    )
    agent.start()
    agent.wait_until_ready()
    try:
        yield
    finally:
        agent.stop()
        path.write_text(before)
        agent.start()
        agent.wait_until_ready()


@contextmanager
def certificate_not_served(lab: Lab) -> Iterator[None]:
    """Renew the gateways' certificate where their hosts take it from; users go on seeing the old one."""
    credentials.renew(lab.topology, lab.folder / "etc" / "credentials")
    yield


@contextmanager
def index_ended(lab: Lab) -> Iterator[None]:
    """Serve an index that nobody has renewed for eight days."""
    lab.offers.index(age=timedelta(days=8))
    try:
        yield
    finally:
        lab.offers.index()


@contextmanager
def known_good_forgotten(lab: Lab, gateway: str) -> Iterator[None]:
    """Have the ledger not know what the gateway goes back to, and know it again at the end."""
    ledger = str(lab.ledger_file)
    _call_fleet(ledger, gateway, FLEET, NO_FLEET)
    try:
        yield
    finally:
        _call_fleet(ledger, gateway, NO_FLEET, FLEET)


def _call_fleet(ledger: str, gateway: str, one: str, other: str) -> None:
    with sqlite3.connect(ledger, timeout=10) as book:
        moved = "update known_good set fleet = ? where fleet = ? and gateway = ?"
        book.execute(moved, (other, one, gateway))
    book.close()


@contextmanager
def chat_account_taken(lab: Lab) -> Iterator[None]:
    """Have an account of a chat that is away linked to somebody, as one that was stolen is."""
    people = lab.people_file
    before = people.read_text() if people.exists() else None
    known = {"name": "ana", "system_users": [f"uid:{ANA}"], "roles": {"*": ["operator"]}}
    _replace(people, yaml.safe_dump({"apiVersion": "penstock/v1", "people": [known]}))
    ledger, secret = lab.installation.ledger, uuid4().hex
    account = f"@ana:{WORKSPACE}"
    ledger.offer_chat_link(secret, WORKSPACE, account, "ana", timedelta(minutes=1))
    ledger.link_chat(secret, "ana", ANA, None, timedelta(days=1))
    try:
        yield
    finally:
        if before is None:
            people.unlink()
        else:
            _replace(people, before)


def _replace(path: Path, text: str) -> None:
    """Write the file so that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)
