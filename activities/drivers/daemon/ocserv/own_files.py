"""The files of an ocserv that somebody else started: looked at where they are, and never written.

What its administrator put at its own paths is read again when it is told to; ocserv 1.1.6 ends on a list
of revoked certificates that it cannot read, and takes a key of another certificate without a word.
"""

import ssl
from datetime import timedelta
from signal import SIGHUP

from activities.drivers.daemon.ocserv import served
from activities.drivers.daemon.ocserv.config import values_of
from activities.drivers.daemon.ocserv.config_test import reasons_in
from activities.drivers.daemon.ocserv.credentials import leaves_in
from activities.drivers.daemon.ocserv.own_config import read_own_config
from activities.drivers.daemon.port import OwnEnvironment
from activities.drivers.programs import run
from policies.model.errors import BadInput, Refused
from policies.redaction import without_tokens

TEST = timedelta(seconds=10)
OLD_TIME = "touch its certificate and key, since it reads nothing older than its last reading, then reload"
"""What helps most often: files that were moved there keep the time at which they were made."""


async def require_fit(environment: OwnEnvironment) -> None:
    """Return if the daemon may read its own configuration, and the files that this one names, again.

    Its own program is asked, as it runs: what was installed meanwhile is not what would read them.

    Raises:
        BadInput: A file of its own cannot be used.
        Refused: The configuration says other than what was adopted, or `ocserv -t` refuses it.
        Unavailable: It has ended, or `ocserv -t` does not.
    """
    text = _text(environment)
    _require_as_adopted(environment, text)
    for certificate, key in _pairs(text):
        _require_pair(environment, certificate, key)
    result = await run(environment.inside(environment.program, "-t", "-c", environment.file), within=TEST)
    if result.status:
        why = without_tokens(reasons_in(result)) or "it says why in the host's log only"
        raise Refused(
            f"ocserv's own test refuses the daemon's own {environment.file} on {environment.gateway.name}, "
            f"or a file that it names: {why}"
        )


async def reload(environment: OwnEnvironment) -> None:
    """Have the daemon read its own configuration and files again, and wait until it serves its certificate.

    Raises:
        Unavailable: It has ended, or does not serve it in time.
    """
    wanted = set[bytes]()
    for certificate, _ in _pairs(_text(environment)):
        path = environment.seen(certificate)
        wanted |= served.first_of(leaves_in(path.read_text()) if path.is_file() else ())
    environment.tell(SIGHUP)
    await served.until_one_of(environment, wanted, OLD_TIME)


def _text(environment: OwnEnvironment) -> str:
    try:
        return environment.seen(environment.file).read_text(errors="replace")
    except OSError as error:
        raise BadInput(f"{environment.file} cannot be read: {error.strerror}") from error


def _require_as_adopted(environment: OwnEnvironment, text: str) -> None:
    """Refuse what the slots beside it, the steering and who asks it do not know of."""
    try:
        own = read_own_config(text)
    except BadInput as error:
        raise BadInput(f"{environment.file}: {error}") from error
    slot = environment.slot
    meant = {
        "port": (own.port, slot.port),
        "device": (own.device, slot.device),
        "pool4": (own.pool4, slot.pool4),
        "pool6": (own.pool6, slot.pool6),
        "occtl-socket-file": (own.control, environment.control),
        "use-occtl": (own.answers, True),
    }
    for name, (now, then) in meant.items():
        if now != then:
            raise Refused(f"{environment.file} says {name} {now}, and {then} was adopted; write that there")


def _pairs(text: str) -> list[tuple[str, str]]:
    """Return the files of certificates and their keys; ocserv takes them together in their order."""
    certificates, keys = values_of(text, "server-cert"), values_of(text, "server-key")
    return list(zip(certificates, keys, strict=False))


def _require_pair(environment: OwnEnvironment, certificate: str, key: str) -> None:
    """Refuse a key of another certificate; all else is ocserv's own to judge, also keys in tokens."""
    paths = environment.seen(certificate), environment.seen(key)
    if not all(path.is_file() for path in paths):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadInput(
                f"server-key {key}: it is not the key of server-cert {certificate}; put the two in place "
                "together"
            ) from error
