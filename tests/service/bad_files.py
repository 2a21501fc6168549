"""Files as people get them wrong: each with what the answer has to name."""

from collections.abc import Callable
from pathlib import Path

from tests.service.conftest import FLEETS

FLEET = FLEETS.format(name="edge")
GATES = Path("deploy/prometheus/gates.yaml").read_text()
TRUST = """\
version: 1
openpgp:
  release: {cert: release.asc, fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567}
rules:
  - product: ocserv
    channel: stable
    groups: {builder: [{openpgp: release}]}
    require: [{group: builder, count: 1}]
    index_group: builder
sources: {allow: ['https://repository.example']}
"""
PEOPLE = """\
apiVersion: penstock/v1
people:
  - name: ana
    system_users: [ana]
    roles: {edge: [operator]}
  - name: bert
    system_users: [bert]
    roles: {edge: [approver]}
"""

Bad = tuple[tuple[str, str], ...]
"""Contents, each with what the answer has to name."""


def swapped(content: str, old: str, new: str) -> str:
    """Return the content with one thing otherwise; it has to be there."""
    assert old in content, old
    return content.replace(old, new, 1)


def limits(said: str) -> str:
    """Return the fleet with these limits."""
    return f"{FLEET}limits: {said}\n"


def _fleets() -> Bad:
    return (
        (limits("{drain_deadline: 8}"), "drain_deadline"),
        (limits("{drain_deadline: 0s}"), "drain_deadline"),
        (limits("{drain_deadline: -1h}"), "drain_deadline"),
        (limits("{drain_deadline: eight hours}"), "drain_deadline"),
        (limits("{drain_deadline: 8h, drain: {warning: 9h}}"), "warning"),
        (limits("{lease: 0s}"), "lease"),
        (limits("{lease: 30d}"), "lease"),
        (limits("{lease: [1s]}"), "lease"),
        (limits("{steps: [1]}"), "steps"),
        (limits("{steps: []}"), "steps"),
        (limits("{steps: ['50%', '25%']}"), "steps"),
        (limits("{steps: ['250%']}"), "steps"),
        (limits("{steps: [half, '100%']}"), "steps"),
        (limits("{shares: [50, 10, 100]}"), "shares"),
        (limits("{shares: [10, 50]}"), "shares"),
        (limits("{canary_share: 0}"), "canary_share"),
        (limits("{canary_share: 101}"), "canary_share"),
        (limits("{switching: 0}"), "switching"),
        (limits("{switching: two}"), "switching"),
        (limits("{draining: -1}"), "draining"),
        (limits("{headroom: .5}"), "headroom"),
        (limits("{headroom: nan}"), "headroom"),
        (limits("{automation: maybe}"), "automation"),
        (limits("{holdout: most}"), "holdout"),
        (limits("{failures: '100%'}"), "failures"),
        (limits("{drain: {batch: 0}}"), "batch"),
        (limits("{drain: {forced: 120}}"), "forced"),
        (limits("{drain: {pause: soon}}"), "pause"),
        (limits("{drain_deadlin: 8h}"), "did you mean drain_deadline"),
        (limits("8h"), "limits"),
        (f"{FLEET}approvals: -1\n", "approvals"),
        (f"{FLEET}approvals: yes\n", "approvals"),
        (swapped(FLEET, "product: ocserv", "product: Open VPN"), "product"),
        (swapped(FLEET, "product: ocserv\n", ""), "product"),
        (swapped(FLEET, "name: edge\n", "name: Edge West\n"), "name"),
        (swapped(FLEET, "name: edge\n", f"name: {'e' * 64}\n"), "name"),
        (swapped(FLEET, "192.0.2.1", "192.0.2.300"), "addresses"),
        (swapped(FLEET, "[192.0.2.1]", "[]"), "addresses"),
        (swapped(FLEET, "[192.0.2.1]", "[192.0.2.1, 192.0.2.1]"), "192.0.2.1"),
        (swapped(FLEET, "[192.0.2.1]", "192.0.2.1"), "addresses"),
        (swapped(FLEET, "port: 4442", "port: 4441"), "port"),
        (swapped(FLEET, "port: 4442", "port: 70000"), "port"),
        (swapped(FLEET, "port: 4442", "port: 0"), "port"),
        (swapped(FLEET, "port: 4442", "port: https"), "port"),
        (swapped(FLEET, "device: ocb", "device: oca"), "device"),
        (swapped(FLEET, "device: ocb", "device: a-device-name-that-no-kernel-takes"), "device"),
        (swapped(FLEET, "10.0.1.0/24", "10.0.0.0/24"), "pool"),
        (swapped(FLEET, "10.0.1.0/24", "10.0.0.128/25"), "pool"),
        (swapped(FLEET, "10.0.1.0/24", "10.0.1.1/24"), "pool4"),
        (swapped(FLEET, "10.0.1.0/24", "10.0.1.0"), "pool4"),
        (swapped(FLEET, "name: b,", "name: a,"), "slot"),
        (FLEET[: FLEET.index("gateways:")] + "gateways: []\n", "gateways"),
        (FLEET + FLEET[FLEET.index("  - name: edge-1") :], "edge-1"),
        (FLEET + "  - {name: edge-2}\n", "addresses"),
        (FLEET + "apiVersion: penstock/v9\n", "apiVersion"),
        (FLEET.replace("    slots:", "    runtime: docker\n    slots:"), "runtime"),
        ("name: [\n", "line"),
        ("name: edge\nname: core\n", "line 2"),
        ("a: &a [1]\nb: *a\n", "line"),
        ("name: !python/object:os.system edge\n", "line"),
        ("- name: edge\n", "mapping"),
        ("", "empty"),
        ("\t name: edge\n", "line 1"),
        ("name: edge\n---\nname: core\n", "line"),
    )


def _gates() -> Bad:
    return (
        ("name: x\n", "no gate is required"),
        (swapped(GATES, "alpha_equal: 0.005", "alpha_equal: 0.9"), "alpha_equal"),
        (swapped(GATES, "alpha_margin: 0.05", "alpha_margin: 0"), "alpha_margin"),
        (swapped(GATES, "kind: rate", "kind: ratio"), "kind"),
        (swapped(GATES, "    kind: rate\n", ""), "kind"),
        (swapped(GATES, "id: auth-failure", "id: connect-success"), "connect-success"),
        (swapped(GATES, "$cohort", "instance"), "$cohort"),
        (swapped(GATES, "required: true", "required: perhaps"), "required"),
        (swapped(GATES, "share: 0.7", "share: 7"), "share"),
        (swapped(GATES, "scrape: 15s", "scrape: 0s"), "scrape"),
        (swapped(GATES, "scrape: 15s", "scrape: 15"), "scrape"),
        (swapped(GATES, "fresh_within: 45s", "fresh_within: 1s"), "fresh_within"),
        (swapped(GATES, "min_controls: 2", "min_controls: -2"), "min_controls"),
        (swapped(GATES, "nominal: 20m", "nominal: 5m"), "nominal"),
        (swapped(GATES, "cap: 60m", "cap: 1m"), "cap"),
        (swapped(GATES, "delta: 0.010", "delta: -1"), "delta"),
        (swapped(GATES, "min_ticks: 2", "min_ticks: 0"), "min_ticks"),
        (swapped(GATES, "min_excess: 0.02", "minimum_excess: 0.02"), "minimum_excess"),
        (swapped(GATES, "quantile: 0.95", "quantile: 95"), "quantile"),
    )


def _trusts() -> Bad:
    return (
        ("version: 1\nversion: 2\n", "line 2"),
        ("version: 1\nrules: {}\n", "line 2"),
        ("version: one\n", "line 1"),
        (swapped(TRUST, "count: 1", "count: 0"), "count"),
        (swapped(TRUST, "count: 1", "count: 3"), "fewer than 3 signers"),
        (swapped(TRUST, "[{openpgp: release}]", "[]"), "builder"),
        (swapped(TRUST, "{openpgp: release}", "{openpgp: nobody}"), "nobody"),
        (swapped(TRUST, "{openpgp: release}", "{openpgp: release, cms: x}"), "exactly one"),
        (swapped(TRUST, "{openpgp: release}", "{person: ana}"), "exactly one"),
        (swapped(TRUST, "{group: builder, count: 1}", "{group: manager}"), "manager"),
        (swapped(TRUST, "0123456789ABCDEF0123456789ABCDEF01234567", "0123"), "fingerprint"),
        (swapped(TRUST, "channel: stable", "chanel: stable"), "chanel"),
        (swapped(TRUST, "    index_group: builder\n", ""), "index_group"),
        (swapped(TRUST, "https://repository.example", "repository"), "repository"),
        (TRUST + "approvals: {config: {count: -1}}\n", "count"),
        (TRUST + "approvals: {config: 2}\n", "config"),
        (TRUST + "approvals: {override_downgrade: {count: 2}}\n", "override_downgrade"),
        (TRUST + "approvals: {config: {count: 2, reason_required: true}}\n", "reason_required"),
        (TRUST + TRUST[TRUST.index("rules:") :], "already given"),
    )


def _peoples() -> Bad:
    return (
        ("people: []\n", "apiVersion"),
        ("apiVersion: penstock/v2\n", "penstock/v1"),
        (swapped(PEOPLE, "name: ana", "name: Ana"), "line 3"),
        (swapped(PEOPLE, "name: ana", "name: penstock"), "penstock"),
        (swapped(PEOPLE, "name: bert", "name: ana"), "ana"),
        (swapped(PEOPLE, "[bert]", "[ana]"), "ana"),
        (swapped(PEOPLE, "[operator]", "[king]"), "line 5"),
        (swapped(PEOPLE, "[operator]", "operator"), "line 5"),
        (swapped(PEOPLE, "{edge: [operator]}", "[operator]"), "line 5"),
        (swapped(PEOPLE, "{edge: [operator]}", "{'EDGE!': [operator]}"), "line 5"),
        (PEOPLE + "groups: [{name: vpn, roles: {edge: [operator]}}]\n", "oidc"),
        (swapped(PEOPLE, "system_users: [ana]", "subjects: [ana]"), "oidc"),
        (PEOPLE + "oidc: {issuer: 'http://idp.example', audience: a, client: c}\n", "issuer"),
        (PEOPLE + "oidc: {issuer: 'https://idp.example'}\n", "audience"),
        (
            (
                PEOPLE + "oidc: {issuer: 'https://i.example', audience: a, client: c, algorithms: [none]}\n",
                "line",
            )
        ),
        (PEOPLE + "oidc: {issuer: 'https://i.example', audience: a, client: c, scopes: [a b]}\n", "a scope"),
        (PEOPLE + "password: secret\n", "password"),
    )


TABLES: dict[str, Callable[[], Bad]] = {
    "fleet.yaml": _fleets,
    "gates.yaml": _gates,
    "trust.yaml": _trusts,
    "people.yaml": _peoples,
}
SOUND = {"fleet.yaml": FLEET, "gates.yaml": GATES, "trust.yaml": TRUST, "people.yaml": PEOPLE}
