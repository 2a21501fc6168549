"""What a release meets on a gateway's host: the platform, and the release that serves there."""

from policies.model.plan import ReleaseRef
from policies.model.release import ConfigCompatibility, Platform, ReleaseManifest
from policies.model.value import Digest, Value


class Serving(Value):
    """The release that gets new sessions on a gateway, as far as the next one has to fit it.

    What was adopted was signed by nobody: it has a configuration of its own, counts as index 0 as an empty
    gateway does, and is told from releases by its `executable`.
    """

    version: str
    rollback_index: int
    config_compat: ConfigCompatibility | None = None
    executable: Digest | None = None

    @classmethod
    def of(cls, manifest: ReleaseManifest) -> "Serving":
        """Return what this manifest says of its release."""
        return cls(
            version=manifest.version,
            rollback_index=manifest.rollback_index,
            config_compat=manifest.config_compat,
        )

    @classmethod
    def adopted(cls, found: ReleaseRef) -> "Serving":
        """Return what is known of a daemon that was adopted."""
        return cls(version=found.version, rollback_index=0, executable=found.executable)


class Host(Value):
    """One gateway's host; nothing serves there before its first release."""

    platform: Platform
    serving: Serving | None = None
