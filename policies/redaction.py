"""Decide what of a text may leave its gateway: no secret of a config, no name of a user in a log."""

import re
from collections.abc import Iterable

from policies.changes import CREDENTIALS, LITERAL_SECRET
from policies.model.value import digest_of

REMOVED = "[removed]"

_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
_SETTING = re.compile(r"^(?P<key>\s*[\w.-]+)(?P<is>\s*=\s*|\s+)(?P<value>\S.*)$")
_HARMLESS = re.compile(r'^"?(?:[\w-]+\[(?:[\w-]+=)?)?/[^\s",]+\]?"?$|^(?:true|false|\d+)$')
"""A path, as it is or inside `plain[passwd=…]`, a switch, a number: what leads to a secret is none."""


def without_secrets(config: str) -> str:
    """Return the config with every value removed that could be a secret; paths to secrets stay."""
    lines = _KEY_BLOCK.sub(REMOVED, config).splitlines()
    return "\n".join(_harmless(line) for line in lines) + "\n"


def _harmless(line: str) -> str:
    setting = _SETTING.match(line)
    if LITERAL_SECRET.search(line):
        return f"{setting['key']}{setting['is']}{REMOVED}" if setting else REMOVED
    if setting is None or line.lstrip().startswith(("#", ";")):
        return line
    suspect = CREDENTIALS.search(setting["key"]) and not _HARMLESS.match(setting["value"].strip())
    return f"{setting['key']}{setting['is']}{REMOVED}" if suspect else line


def without_names(text: str, names: Iterable[str], salt: str) -> str:
    """Return the text with each user's name replaced, the same name by the same word.

    The salt is thrown away with the call, so that nobody can try names against the words.
    """
    for name in sorted(set(names) - {""}, key=len, reverse=True):
        word = f"user-{digest_of(f'{salt}{name}'.encode())[7:15]}"
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    return text
