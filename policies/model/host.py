"""What a release meets on a gateway's host: the platform, and the release that serves there."""

from policies.model.release import ConfigCompatibility, Platform, ReleaseManifest
from policies.model.value import Value


class Serving(Value):
    """The release that gets new sessions on a gateway, as far as the next one has to fit it."""

    version: str
    rollback_index: int
    config_compat: ConfigCompatibility

    @classmethod
    def of(cls, manifest: ReleaseManifest) -> "Serving":
        """Return what this manifest says of its release."""
        return cls(
            version=manifest.version,
            rollback_index=manifest.rollback_index,
            config_compat=manifest.config_compat,
        )


class Host(Value):
    """One gateway's host; nothing serves there before its first release."""

    platform: Platform
    serving: Serving | None = None
