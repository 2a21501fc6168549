"""Decide whether a release fits where it is to run: its platforms, what it may follow, its configuration.

The signers wrote these down because the release would break elsewhere. A way back is not asked: what
was known-good here has run here, and the release that is left may read what it does not.
"""

from datetime import timedelta

from policies.model.host import Host, Serving
from policies.model.refusals import DoesNotFit
from policies.model.release import ConfigCompatibility, ReleaseManifest


def require_fits(manifest: ReleaseManifest, host: Host) -> None:
    """Return if the release may take new sessions on this host after what serves there now.

    Raises:
        DoesNotFit: It is for other platforms, may not follow that release, or one of the two cannot read
            the configuration that the other one writes.
    """
    _require_platform(manifest, host)
    require_follows(manifest, host.serving)


def require_follows(manifest: ReleaseManifest, serving: Serving | None) -> None:
    """Return if the release may follow that one; None where nothing serves yet, which counts as index 0.

    A daemon that was adopted counts as the release whose very program it is, when that is this one.

    Raises:
        DoesNotFit: It may not, or one of the two cannot read the configuration that the other one writes.
    """
    bounds, index = manifest.from_versions, _index_of(serving, manifest)
    if not bounds.allow(index):
        least = f"{bounds.min} or more"
        wanted = least if bounds.max is None else f"from {bounds.min} to {bounds.max}"
        there = f"{serving.version} with {index} serves" if serving else "nothing serves yet"
        raise DoesNotFit(
            f"{manifest.version} may only follow a release with rollback index {wanted}, and {there}; go by "
            "one that may follow it",
            reason="from_versions",
        )
    if serving is not None and serving.config_compat is not None:
        _require_config(manifest, serving, serving.config_compat)


def _index_of(serving: Serving | None, manifest: ReleaseManifest) -> int:
    if serving is not None and serving.executable == f"sha256:{manifest.executable.sha256}":
        return manifest.rollback_index
    return serving.rollback_index if serving is not None else 0


def require_drains(manifest: ReleaseManifest, deadline: timedelta) -> None:
    """Return if sessions of the release before may take that long to end.

    Raises:
        DoesNotFit: The signers want them gone sooner, or given more time.
    """
    bounds = manifest.drain
    if not bounds.least <= deadline <= bounds.most:
        raise DoesNotFit(
            f"whoever signed {manifest.version} gives sessions of the release before from {bounds.least} to "
            f"{bounds.most} to end, and limits.drain_deadline is {deadline}; set it between, or have the "
            "release signed with other bounds",
            reason="drain",
        )


def _require_platform(manifest: ReleaseManifest, host: Host) -> None:
    trees = [artifact.platform for artifact in manifest.artifacts if artifact.unpack != "none"]
    if host.platform not in manifest.platforms or any(tree != str(host.platform) for tree in trees):
        made_for = ", ".join(sorted({*map(str, manifest.platforms), *trees}))
        raise DoesNotFit(
            f"{manifest.version} is made for {made_for}, and this host is {host.platform}; have one built",
            reason="platform",
        )


def _require_config(manifest: ReleaseManifest, serving: Serving, there: ConfigCompatibility) -> None:
    """Both ways, because the way back leads to what serves now."""
    new = manifest.config_compat
    if not new.understands(there.writes):
        unread, reader, writer = there.writes, manifest.version, serving.version
    elif not there.understands(new.writes):
        unread, reader, writer = new.writes, serving.version, manifest.version
    else:
        return
    raise DoesNotFit(
        f"{writer} writes configuration version {unread}, which {reader} does not read, so there would be no "
        f"way from {serving.version} to {manifest.version} and back; go by a release that reads both",
        reason="config",
    )
