"""What a template of charon's configuration leaves to penstock, so that instances stand side by side.

One file is both: strongswan.conf, which charon reads, and swanctl.conf, which swanctl loads into it. Each
takes its own sections of the file. swanctl looks for private keys in the folder `private` beside it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from activities.drivers.daemon.port import CONFIG
from activities.drivers.daemon.strongswan.control import SOCKET
from activities.drivers.daemon.strongswan.settings import INCLUDE, options_of, sections_of
from activities.drivers.daemon.template import CREDENTIAL, SECRET, is_left, lines_of, unfilled
from policies.model.errors import BadInput

FILE = "strongswan.conf"
PRIVATE = "private"
LOAD = f"/usr/sbin/swanctl --load-all --noprompt --file {CONFIG}/{FILE}"
ADDRESSES = "pools.*.addrs"
NEEDED = {
    "charon.plugins.vici.socket": f"unix://$run/{SOCKET}",
    "charon.filelog.stderr.ike_name": "yes",
    "charon.start-scripts.*": f"{LOAD.replace(str(CONFIG), '$config')} --uri unix://$run/{SOCKET}",
    ADDRESSES: "$users4",
    "secrets.private*.file": "$credential_key",
}
"""Options that differ from slot to slot, that penstock reads, or that belong into no release."""
SEVERAL = ("charon.start-scripts.*",)
"""Options that a template may have beside ours."""
SECRETS = re.compile(
    r"(?!.*\.xauth\.)(?:.*\.)?(?:secret|pin|password|passphrase|preshared_key|username_password)"
)
"""Options that are a secret, whatever section they stand in: a release is read by many, so it names them.

Below `xauth` of `eap-radius`, they are what users are asked.
"""
SECRET_FILES = re.compile(r"secrets\..+\.file")
PASSWORD = re.compile(r"\w://[^/@]*:(?P<password>[^@]*)@")
"""One in an address, such as that of a database."""
OURS = (
    *("charon.port", "charon.port_nat_t", "charon.stop-scripts.*"),
    *("charon.plugins.attr.address", "charon.plugins.attr.1", "charon.plugins.attr.8"),
)
"""Options that would move the instance away from where users come, or give all of them one address.

1 and 8 are the numbers of the attributes of an address (RFC 7296, section 3.15.1).
"""
_CONNECTION = re.compile(r"connections\.(?P<name>[^.:]+)(?:.*\.(?P<option>[^.]+))?")
_REFERRING = re.compile(r"(?:connections|charon(?:\.filelog(?:\.stderr)?)?)\s*:[^.]*")
"""A section whose connections, or whose settings of the log, stand in another one."""
LOG = "charon.filelog.stderr"
LEAST_LEVEL = 1
"""From which level on the log has what a login was given; charon's default, also for what is no number."""
LOGGED = ("dmn", "ike", "cfg", "enc", "job")
"""Parts of charon whose lines are read: of logins, and of a config that is tried."""
_TRUE = ("1", "yes", "true", "enabled")
_LEVEL = re.compile(r"\s*[+-]?\d+")


def require_template(text: str, name: str) -> None:
    """Refuse a template that lacks a placeholder, or has one that nobody fills.

    Raises:
        BadInput: with every option that is wrong, and the line that mends it.
    """
    wrong = unfilled(text)
    plain = "\n".join(lines_of(text))
    said = list(options_of(plain))
    wrong += [
        f"{option} is not for a template, leave it out"
        for option, _ in said
        if any(_fits(option, ours) for ours in OURS)
    ]
    wrong += [
        f"include {value} brings options that nobody signed, write them out"
        for option, value in said
        if option.rpartition(".")[2] == INCLUDE
    ]
    wrong += _not_left(said)
    sections = sections_of(plain)
    wrong += _from_elsewhere(sections)
    wrong += _unread(dict(said))
    wrong += _by_ikev1(said, sections)
    if wrong:
        raise BadInput(f"{name} is no template of charon's configuration: {'; '.join(wrong)}")


def _not_left(said: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield what is not left: of most options charon takes the last line, of pools each."""
    for option, filler in NEEDED.items():
        lines = [(key, value) for key, value in said if _fits(key, option)]
        others = [(key, value) for key, value in lines if not is_left(value, filler)]
        if len(others) == len(lines):
            have = f"says `{lines[0][1]}`" if lines else "is missing"
            yield f"{option} {have}, write `{filler}`"
        elif option not in SEVERAL:
            for key, value in others:
                if option != ADDRESSES or not is_left(value, "$pool6"):
                    yield f"{key} says `{value}`, write `{filler}`"
    yield from _pools_elsewhere(said)
    for key, value in said:
        yield from _secrets(key, value)


def _pools_elsewhere(said: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the pools of connections that are none of a slot, as those of RADIUS, DHCP or a database."""
    own = {key.split(".")[1].partition(":")[0].strip() for key, _ in said if _fits(key, ADDRESSES)}
    for key, value in said:
        if key.rpartition(".")[2] == "pools":
            for name in sorted({word.strip() for word in value.split(",")} - own - {""}):
                yield (
                    f"{key} names {name}, whose addresses are the same in every slot; write the name of a "
                    "section of `pools` that has `addrs = $users4`"
                )


def _from_elsewhere(sections: Sequence[str]) -> Iterator[str]:
    """Yield the sections of which more stands in another one than is looked at here."""
    for above in dict.fromkeys(found[0] for section in sections if (found := _REFERRING.match(section))):
        what = "connections" if above.startswith("connections") else "options"
        yield f"`{above}` takes {what} from another section, write them out"


def _unread(said: Mapping[str, str]) -> Iterator[str]:
    """Yield what keeps logins out of the log, or gives its lines another form."""
    of_log = {key.removeprefix(f"{LOG}."): value for key, value in said.items() if key.startswith(f"{LOG}.")}
    default = _level(of_log.get("default", ""), LEAST_LEVEL)
    for part in LOGGED:
        if _level(of_log.get(part, ""), default) < LEAST_LEVEL:
            name = part if part in of_log else "default"
            yield (
                f"{LOG}.{name} says `{of_log[name]}`, and logins are counted by the log: write "
                f"`{name} = {LEAST_LEVEL}`"
            )
            if name == "default":
                break
    if of_log.get("path", "stderr") != "stderr":
        yield f"{LOG}.path says `{of_log['path']}`, where logins are not counted, leave it out"
    if of_log.get("json", "").lower() in _TRUE:
        yield f"{LOG}.json says `{of_log['json']}`, and logins are not counted by such lines, leave it out"
    if set(of_log.get("time_format", "")) & set("[<"):
        yield f"{LOG}.time_format has a bracket, which no stamp may have before a line of a login"


def _level(said: str, default: int) -> int:
    """Return the level as charon reads it: what is no number is not said."""
    return int(said) if _LEVEL.fullmatch(said) else default


def _by_ikev1(said: Sequence[tuple[str, str]], sections: Sequence[str]) -> Iterator[str]:
    """Yield the connections that do not have `version = 2` themselves: charon answers IKEv1 there."""
    versions = dict[str, set[str]]()
    for path, value in (*((section, "") for section in sections), *said):
        if found := _CONNECTION.match(path):
            have = versions.setdefault(found["name"].strip(), set())
            if found["option"] == "version":
                have.add(value)
    for name, have in versions.items():
        if have != {"2"}:
            wrong = f"says `version = {min(have - {'2'})}`" if have else "has no `version`"
            yield (
                f"connections.{name} {wrong}, write `version = 2`: logins by IKEv1 are not counted, so no "
                "gate would see a release that breaks them"
            )


def _secrets(key: str, value: str) -> Iterator[str]:
    """Yield what is a secret and not left to penstock; it is not quoted."""
    found = PASSWORD.search(value)
    if SECRETS.fullmatch(key) and not is_left(value, f"${SECRET}NAME"):
        yield f"{key} says `...`, write `${SECRET}NAME`"
    elif found is not None and not is_left(found["password"], f"${SECRET}NAME"):
        yield f"{key} has a password in its address, write `${SECRET}NAME` there"
    elif (
        SECRET_FILES.fullmatch(key)
        and not is_left(value, f"${CREDENTIAL}NAME")
        and not _fits(key, "secrets.private*.file")
    ):
        yield f"{key} says `...`, write `${CREDENTIAL}NAME`"


def _fits(option: str, pattern: str) -> bool:
    """Return whether an option is one of a pattern, where `*` stands for a part of one section's name."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[^.]*"), option) is not None
