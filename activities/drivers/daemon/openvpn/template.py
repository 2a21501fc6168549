"""What a template of OpenVPN's configuration leaves to penstock, so that instances stand side by side."""

import re
from collections.abc import Iterator, Mapping, Sequence

from activities.drivers.daemon.openvpn.config import Option, options_in
from activities.drivers.daemon.openvpn.management import SOCKET
from activities.drivers.daemon.openvpn.secret_words import secrets_in
from activities.drivers.daemon.openvpn.user_files import given_in
from activities.drivers.daemon.template import CREDENTIAL, Accounts, is_left, lines_of, unfilled
from policies.model.errors import BadInput

NEEDED = {
    "port": "$port",
    "dev": "$device",
    "server": "$pool4 $netmask4",
    "management": f"$run/{SOCKET} unix",
    "key": "$credential_key",
}
"""Options that differ from slot to slot or belong into no release, each with what fills it."""
TOKEN_KEY = "auth-gen-token-secret"  # noqa: S105 - the name of an option
_SECRETS = (
    *("secret", "tls-auth", "tls-crypt", "tls-crypt-v2", "askpass", "auth-user-pass"),
    *(TOKEN_KEY, "http-proxy-user-pass"),
)
ALLOWED = {"lport": "$port", "server-ipv6": "$pool6"} | dict.fromkeys(_SECRETS, f"${CREDENTIAL}NAME")
"""Options that a template may leave out, and that are left to penstock where it has them.

OpenVPN takes the last line of most options, so each of them has to be left. A file that is a secret is none
of a release, also an inline one: a release is read by many.
"""
OURS = (
    "daemon",
    "log",
    "log-append",
    "syslog",
    "inetd",
    "cd",
    "chroot",
    "writepid",
    "management-hold",
    "config",
    "management-client",
    "machine-readable-output",
    "suppress-timestamps",
    "max-clients",
    "pkcs12",
    "management-client-auth",
    "management-client-pf",
    "management-query-passwords",
    "management-external-key",
    "management-external-cert",
    "management-signal",
)
"""Options that would take the instance, its log or its folders away from us, or bring what nobody signed.

Those of `management` wait for answers that penstock does not give, or end sessions when it hangs up. A key is
text, and `pkcs12` is none. Without stamps, a user's name that reads like one begins a line. `max-clients`
follows from the slot's pool.
"""
SPELT_OUT = dict.fromkeys(
    ("ifconfig", "ifconfig-pool", "ifconfig-push-constraint", "server-bridge"), "server $pool4 $netmask4"
) | dict.fromkeys(("ifconfig-ipv6", "ifconfig-ipv6-pool"), "server-ipv6 $pool6")
"""What pools are spelt out by, each with what a template says in its place: so they are one for all slots."""
TOPOLOGY = "subnet"
"""The one in which a pool has an address for each user; net30, which is usual up to 2.6, has one for four."""

LEAST_VERB, VERB, LETTERS_VERB = 3, 4, 5
"""From which `verb` on the log has what a login was given, what we write, and the one that adds letters."""
LEAST_MUTE, MUTE = 10, 20
"""How many lines of one kind a login has at most before `mute` hides its last, and what we write."""
_NUMBER = re.compile(r"\s*\+?(\d+)")

BY_UDP = ("explicit-exit-notify",)
"""Options that say nothing over TCP; OpenVPN before 2.6 does not start with them there."""


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, has one that is not filled, or says twice what is ours.

    Raises:
        BadInput: with every option that is wrong, and the line that mends it.
    """
    wrong = unfilled(text)
    try:
        options = options_in("\n".join(lines_of(text)))
    except BadInput as error:
        wrong.append(str(error))
    else:
        wrong += _wrong(options)
    if wrong:
        raise BadInput(f"{name} is no template of OpenVPN's configuration: {'; '.join(wrong)}")


def accounts_in(text: str) -> Accounts:
    """Return the user and the group as which a template has OpenVPN run."""
    options = options_in("\n".join(lines_of(text)))
    users, groups = (tuple(one.value for one in options if one.name == key) for key in ("user", "group"))
    return Accounts(("user", users), ("group", groups))


def _wrong(options: Sequence[Option]) -> Iterator[str]:
    said = dict[str, list[Option]]()
    for option in options:
        said.setdefault(option.name, []).append(option)
    yield from (f"{name} is not for a template, leave it out" for name in OURS if name in said)
    protocols = said.get("proto", [])[-1:]
    if any(option.words[:1] and option.words[0].startswith("tcp") for option in protocols):
        yield from (f"{name} is for UDP, leave it out over TCP" for name in BY_UDP if name in said)
    if [option.words for option in said.get("topology", [])[-1:]] != [(TOPOLOGY,)]:
        again = f"line {said['topology'][-1].number}: " if "topology" in said else ""
        yield f"{again}users have too few addresses of a pool, write `topology {TOPOLOGY}`"
    if "auth-gen-token" in said and TOKEN_KEY not in said:
        yield (
            f"{TOKEN_KEY} is missing, write `{TOKEN_KEY} {ALLOWED[TOKEN_KEY]}`: each instance makes a random "
            "key otherwise, and refuses users of the other one with their tokens"
        )
    yield from _unread(said)
    yield from given_in(options)
    yield from secrets_in(options)
    yield from (
        f"line {option.number}: {option.name} gives the same addresses in every slot, write "
        f"`{SPELT_OUT[option.name]}` in its place"
        for option in options
        if option.name in SPELT_OUT
    )
    for name, filler in NEEDED.items():
        if name not in said:
            yield f"{name} is missing, write `{name} {filler}`"
    for name, filler in (NEEDED | ALLOWED).items():
        for option in said.get(name, []):
            if not _is_left(option, filler):
                again = f"line {option.number}: " if len(said[name]) > 1 else ""
                yield f"{again}{name} says `{option.value}`, write `{name} {filler}`"


def _unread(said: Mapping[str, Sequence[Option]]) -> Iterator[str]:
    """Yield what keeps logins out of the log: without its last line, each counts as a timeout."""
    verb, mute = (_last_number(said.get(name, ())) for name in ("verb", "mute"))
    if verb is None:
        yield f"verb is missing, write `verb {VERB}`"
    elif verb[1] < LEAST_VERB or verb[1] == LETTERS_VERB:
        yield f"line {verb[0]}: logins cannot be read in the log of `verb {verb[1]}`, write `verb {VERB}`"
    if mute is not None and 0 < mute[1] < LEAST_MUTE:
        yield f"line {mute[0]}: `mute {mute[1]}` hides lines of logins, write `mute {MUTE}` or leave it out"


def _last_number(said: Sequence[Option]) -> tuple[int, int] | None:
    """Return the number that counts as OpenVPN reads it (atoi(3)), behind that of its line."""
    if not said:
        return None
    found = _NUMBER.match(said[-1].value)
    return said[-1].number, int(found[1]) if found else 0


def _is_left(option: Option, filler: str) -> bool:
    """Return whether the option is left to penstock; behind a credential it may say more."""
    wanted = filler.split()
    if option.inline:
        return False
    words = option.words[: len(wanted)] if filler.startswith(f"${CREDENTIAL}") else option.words
    return len(words) == len(wanted) and all(map(is_left, words, wanted))
