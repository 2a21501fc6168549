"""Find secrets in strongSwan's own files: shared keys of RADIUS, passwords, passphrases and PINs."""

import re
from pathlib import PurePosixPath

from activities.drivers.daemon.strongswan.settings import options_of
from activities.drivers.daemon.strongswan.template import PASSWORD, SECRETS
from activities.drivers.daemon.template import SECRET, is_left

_SETTINGS = re.compile(r"(?P<own>(?:^|/)(?:strongswan\.d|swanctl)/)|\.conf(?:\.template)?$")
"""Names of files whose settings are in sections: strongswan.conf, swanctl.conf and what these include.

What lies in their own folders may be included into a section, and has none then.
"""
_LEGACY = re.compile(r"(?:^|/)ipsec\.secrets(?:\.d/[^/]+|\.inc)?$|\.secrets$")
"""Names of files that `ipsec` and the plugin `stroke` read (ipsec.secrets(5))."""
_LINE = re.compile(
    r"^[^#\n]*:[ \t]*(?:"
    r"(PSK|EAP|XAUTH|NTLM|PPK)[ \t]+(?!%)\S"
    r"|(RSA|ECDSA|BLISS|PKCS8|P12|PIN)[ \t]+\S+[ \t]+(?!%prompt|#)\S)",
    re.MULTILINE | re.IGNORECASE,
)


def secret_in(name: str, text: str) -> str | None:
    """Return what kind of secret a file of this name has, None for none; it is not quoted."""
    place = PurePosixPath(name.replace("!", "/")).as_posix()
    if _LEGACY.search(place) and (found := _LINE.search(text)):
        return f"strongSwan {(found[1] or found[2]).upper()} secret"
    named = _SETTINGS.search(place)
    if named is not None and (named["own"] or "{" in text):
        for option, value in options_of(text):
            if (named["own"] or "." in option) and _is_secret(option, value):
                return f"strongSwan {option}"
    return None


def _is_secret(option: str, value: str) -> bool:
    """Return whether a value is a secret, and no name by which penstock fills one in."""
    in_address = PASSWORD.search(value)
    said = value if SECRETS.fullmatch(option) else in_address["password"] if in_address else ""
    return bool(said) and not is_left(said, f"${SECRET}NAME")
