"""What every host boots from: Debian 12 with systemd and ocserv, made once and never written to.

It is made by debootstrap from the mirror that apt is configured with here, and kept under
`.state/hosts`, named for all that goes into it: a changed recipe is another image.
`python -m tests.hosts.image` makes it ahead of the tests, where those have no network.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from deploy.lab.packages import scratch
from orchestrator.publishing.debian import architecture, mirror
from policies.model.errors import PenstockError, Unavailable

FOLDER = Path(__file__).parents[2] / ".state" / "hosts"
SUITE = "bookworm"
SYSTEM = "systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps,nftables,ca-certificates,man-db"
PACKAGES = "ocserv openssl gpg"
"""What an unprepared gateway has; nothing of ours."""
AT_HAND = "python3 openconnect"
"""What apt finds in its own cache, not installed, with what each recommends: the hosts have no mirror."""
ALONE_AT_HAND = "haproxy prometheus nginx-light gnupg"
"""The same without what they recommend."""
WITHIN = 900.0
"""Seconds; on an idle machine beside a near mirror it takes about 60."""

_BUILD = """
set -eu
umask 022
hostname image
debootstrap --variant=minbase --include="$INCLUDE" "$SUITE" "$ROOT" "$MIRROR"
printf '#!/bin/sh\\nexit 101\\n' >"$ROOT/usr/sbin/policy-rc.d"
chmod 755 "$ROOT/usr/sbin/policy-rc.d"
DEBIAN_FRONTEND=noninteractive chroot "$ROOT" apt-get -qq install -y --no-install-recommends $PACKAGES
chroot "$ROOT" apt-get clean
chroot "$ROOT" apt-get -qq install -y --download-only $AT_HAND
chroot "$ROOT" apt-get -qq install -y --download-only --no-install-recommends $ALONE_AT_HAND
# It cannot start before it has a certificate; who sets a gateway up turns it on.
chroot "$ROOT" systemctl --quiet disable ocserv
# Each host has its own name and identity, and no way to this machine's names.
rm "$ROOT/usr/sbin/policy-rc.d" "$ROOT/etc/hostname" "$ROOT/etc/resolv.conf"
: >"$ROOT/etc/machine-id"
"""


def image() -> Path:
    """Return the image's root folder, made if it is not there yet.

    Raises:
        Unavailable: debootstrap or the mirror failed; the sentence has its last words.
    """
    recipe = repr((SUITE, SYSTEM, PACKAGES, AT_HAND, ALONE_AT_HAND, _BUILD, architecture()))
    made = FOLDER / f"{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not made.is_dir():
        with scratch(FOLDER) as folder:
            _build(folder / "root", folder / "log")
            try:
                (folder / "root").rename(made)
            except OSError:  # another process was quicker
                if not made.is_dir():
                    raise
    return made


def _build(root: Path, log: Path) -> None:
    """Build in namespaces of its own: what debootstrap mounts goes with it, also when it is killed.

    The packages' scripts make temporary files and a certificate for the host's name: neither this
    machine's TMPDIR nor its name means anything inside the image.
    """
    apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    settings = {
        "ROOT": root,
        "SUITE": SUITE,
        "INCLUDE": SYSTEM,
        "PACKAGES": PACKAGES,
        "AT_HAND": AT_HAND,
        "ALONE_AT_HAND": ALONE_AT_HAND,
    }
    given = [*(f"{name}={value}" for name, value in settings.items()), f"MIRROR={mirror()}"]
    with log.open("wb") as told:
        try:
            done = subprocess.run(
                ["env", "--unset=TMPDIR", *given, *apart, "sh", "-c", _BUILD],
                stdout=told,
                stderr=told,
                timeout=WITHIN,
                check=False,
            )
            problem = f"ended with {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = f"was not done after {WITHIN:g} s"
    if problem:
        said = " / ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise Unavailable(
            f"the hosts' image cannot be made: debootstrap {problem}: {said}; "
            "where there is a network, `python -m tests.hosts.image` makes it for later"
        )


if __name__ == "__main__":
    try:
        print(image())
    except PenstockError as obstacle:
        sys.exit(str(obstacle))
