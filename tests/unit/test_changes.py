"""What a release changes beside its programs."""

import pytest

from policies.changes import beyond_whitelist, change_between
from policies.model.trust import ApprovalRule, ApprovalRules, Change

MANIFEST = "sha256:" + "ab" * 32
RULES = ApprovalRules(config=ApprovalRule(count=2, unless_keys_in=("log-level", "banner")))
BEFORE = (
    "# ocserv\ntcp-port = @port@\nlog-level = 2\nbanner = hello\nroute = 10.0.0.0/8\nroute = 192.168.0.0/16\n"
)


def changed(after: str, before: str | None = BEFORE) -> Change:
    return change_between(MANIFEST, before, after)


def test_the_same_settings_in_another_layout_are_no_change() -> None:
    assert changed(BEFORE.replace(" = ", "=").replace("# ocserv\n", "\n; other words\n")).keys == ()


def test_what_the_whitelist_covers_is_no_wider_change() -> None:
    change = changed(BEFORE.replace("log-level = 2", "log-level = 3").replace("hello", "welcome"))
    assert change.keys == ("banner", "log-level")
    assert beyond_whitelist(change, RULES) == ()


@pytest.mark.parametrize(
    "after",
    [
        BEFORE + "tls-priorities = LEGACY\n",
        BEFORE.replace("route = 192.168.0.0/16\n", ""),
        BEFORE.replace("10.0.0.0/8", "0.0.0.0/0"),
        BEFORE.replace("@port@", "22"),
    ],
)
def test_a_change_outside_the_whitelist_is_named(after: str) -> None:
    assert beyond_whitelist(changed(after), RULES)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('auth = "radius[config=/etc/other]"', "auth"),
        ("server-key = /etc/other.pem", "server-key"),
        ("banner = -----BEGIN RSA PRIVATE KEY-----", "banner"),
        ("banner = $5$salt$hash", "banner"),
    ],
)
def test_credentials_are_never_on_the_whitelist(line: str, key: str) -> None:
    change = changed(BEFORE.replace("banner = hello", line))
    assert key in change.credentials


def test_a_first_installation_is_a_change_of_everything() -> None:
    change = changed(BEFORE, before=None)
    assert change.before is None
    assert change.keys == ("banner", "log-level", "route", "tcp-port")
