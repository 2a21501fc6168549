"""What a template of charon's configuration leaves to penstock, so that instances stand side by side.

One file is both: strongswan.conf, which charon reads, and swanctl.conf, which swanctl loads into it. Each
takes its own sections of the file. swanctl looks for private keys in the folder `private` beside it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from activities.drivers.daemon.port import CONFIG
from activities.drivers.daemon.strongswan.control import SOCKET
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
INCLUDE = "include"
_CONNECTION = re.compile(r"connections\.(?P<name>[^.:]+)(?:.*\.(?P<option>[^.]+))?")
_REFERRING = re.compile(r"connections\s*:[^.]*")
"""A section whose connections stand in another one."""
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\n]|[^\s{}#"=][^{}#"=\n]*|=|#[^\n]*')


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
    wrong += _by_ikev1(said, sections_of(plain))
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


def _by_ikev1(said: Sequence[tuple[str, str]], sections: Sequence[str]) -> Iterator[str]:
    """Yield the connections that do not have `version = 2` themselves: charon answers IKEv1 there."""
    for above in dict.fromkeys(found[0] for section in sections if (found := _REFERRING.match(section))):
        yield f"`{above}` takes connections from another section, write them out"
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


def options_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each option that a configuration gives, by the path of its sections, and its value."""
    reading = _Reading()
    for part in _PARTS.findall(text):
        if not part.startswith("#"):
            yield from reading.take(part)
    yield from reading.take("\n")


def sections_of(text: str) -> Sequence[str]:
    """Return each section that a configuration has, by its path, also one without options."""
    reading = _Reading()
    for part in _PARTS.findall(text):
        if not part.startswith("#"):
            list(reading.take(part))
    return reading.begun


@dataclass
class _Reading:
    """Where the reader of a file is: sections that are open, and what the line has said so far."""

    sections: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def take(self, part: str) -> Iterator[tuple[str, str]]:
        if part == "{":
            self.sections.append(" ".join(self.words).strip())
            self.words = []
            self.begun.append(".".join(self.sections))
        elif part in "}\n":
            yield from self._end_of_line()
            if part == "}" and self.sections:
                self.sections.pop()
        else:
            self.words.append(part.strip().strip('"'))

    def _end_of_line(self) -> Iterator[tuple[str, str]]:
        if "=" in self.words:
            at = self.words.index("=")
            key = " ".join(self.words[:at])
            yield ".".join([*self.sections, key]), "".join(self.words[at + 1 :])
            self.words = []
        elif self.words[:1] and self.words[0].split()[:1] == [INCLUDE]:
            yield ".".join([*self.sections, INCLUDE]), " ".join(self.words).removeprefix(INCLUDE).strip()
            self.words = []


def _fits(option: str, pattern: str) -> bool:
    """Return whether an option is one of a pattern, where `*` stands for a part of one section's name."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", r"[^.]*"), option) is not None
