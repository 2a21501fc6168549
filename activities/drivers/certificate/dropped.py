"""Files that something else renews, such as certbot or a configuration management."""

from pathlib import Path

from activities.drivers.certificate.pending import Pending
from activities.drivers.certificate.port import Pair
from activities.drivers.certificate.settings import FileSettings
from activities.drivers.private_files import read_private
from activities.drivers.rights import read_own
from policies.model.errors import BadInput


class DroppedFiles:
    """Reads both files; there is nobody to ask."""

    def __init__(self, settings: FileSettings) -> None:
        """Take where they are."""
        self._settings = settings

    def has_another(self, than: Pair | None) -> bool:
        """Say whether another certificate lies there."""
        try:
            return than is None or self._settings.certificate.read_text() != than.chain
        except (OSError, UnicodeDecodeError):
            return False

    def obtain(self, pending: Pending) -> Pair:  # noqa: ARG002 - whoever wrote them made the key
        """Return what lies there now."""
        key = read_private(self._settings.key, "the certificate's key")
        return Pair(_public(self._settings.certificate), key)


def _public(path: Path) -> str:
    try:
        return read_own(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the certificate {path} cannot be read: {error}; check the path") from error
