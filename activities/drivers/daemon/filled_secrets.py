"""The secrets that an instance was given, removed from every text that leaves its gateway.

A daemon may quote any line of its configuration, in which `$secret_NAME` was filled. So what counts is the
value itself, and not the option or the sentence around it.
"""

import re
from pathlib import Path

from activities.drivers.daemon.template import FOLDER
from policies.lines import lines_in
from policies.redaction import without_tokens, without_values

_PUBLIC = re.compile(
    r"-----BEGIN (?P<kind>(?:TRUSTED )?CERTIFICATE|X509 CRL|PUBLIC KEY|DH PARAMETERS)-----.*?"
    r"-----END (?P=kind)-----",
    re.DOTALL,
)
"""Parts of a credential that everybody may read; a list of revoked certificates has thousands of lines."""
_WORD = re.compile(r"\w")


def secrets_in(config: Path) -> frozenset[str]:
    """Return each line of the credentials in an instance's config folder; none where it has none."""
    try:
        files = [path for path in (config / FOLDER).iterdir() if path.is_file()]
        texts = [path.read_text(errors="replace") for path in files]
    except OSError:  # it is replaced at this moment, or is gone
        return frozenset()
    lines = (line.strip() for text in texts for line in lines_in(_PUBLIC.sub("", text)))
    return frozenset(line for line in lines if _WORD.search(line) and not line.startswith("-----"))


def without_filled_secrets(text: str, config: Path) -> str:
    """Return what a daemon printed without its credentials and other secrets."""
    return without_tokens(without_values(text, secrets_in(config)))
