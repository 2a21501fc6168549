"""Where a pod lives, as its node's agent reaches it: by its socket, with the agent's own programs."""

from dataclasses import dataclass
from pathlib import Path

from activities.drivers.daemon.port import CONFIG, RUN
from activities.drivers.runtime.host.chroot import Chroot
from activities.drivers.runtime.pods.pod import CONTROL

LIBRARIES = ("lib", "usr/lib", "lib64", "usr/lib64", "lib/*-linux-gnu*", "usr/lib/*-linux-gnu*")
"""Where a release's tree has its libraries."""
LOADERS = ("lib64/ld-linux*.so.*", "lib/ld-linux*.so.*", "usr/lib*/ld-linux*.so.*")
"""Where it has the program that loads programs (ld.so(8))."""

# Neither a chroot nor a mount is possible here. The release's own loader starts its program with its own
# libraries, and its config is read as a copy that names our folders in place of those that a pod sees.
OWN_LOADER = """set -e
root=$1 config=$2 libraries=$3 loader=$4 rewrite=$5 program=$6; shift 6
copy=$(mktemp -d "$config.XXXXXX"); trap 'rm -rf "$copy"' EXIT
for file in "$config"/*; do
  [ ! -f "$file" ] || sed "$rewrite" "$file" > "$copy/${file##*/}"
done
for word; do
  shift; case $word in /etc/penstock/*) word=$copy/${word#/etc/penstock/} ;; esac; set -- "$@" "$word"
done
if [ -n "$loader" ]; then
  "$loader" --inhibit-cache --library-path "$libraries" "$root$program" "$@"
else
  "$root$program" "$@"
fi
"""


@dataclass(frozen=True)
class PodPlace(Chroot):
    """The folders of one pod on its node."""

    @property
    def own_networks(self) -> bool:
        """Whether clients there may have namespaces: an agent on a node has no right to make them."""
        return False

    @property
    def control(self) -> str | None:
        """The pod's control socket, where the node has it."""
        return str(self.run / CONTROL)

    def inside(self, *command: str) -> list[str]:
        """Return the command line that runs this command of the release's tree, beside no pod.

        It reads the config as a pod would, and does what needs no root of its own: a config test.
        """
        libraries = ":".join(str(path) for name in LIBRARIES for path in sorted(self.root.glob(name)))
        loader = next((path for name in LOADERS for path in sorted(self.root.glob(name))), None)
        rewrite = f"s|{CONFIG}|{_meant(self.config)}|g; s|{RUN}|{_meant(self.run)}|g"
        known = [str(self.root), str(self.config), libraries, str(loader or ""), rewrite]
        return ["sh", "-c", OWN_LOADER, "test", *known, *command]

    def beside(self, *command: str) -> list[str]:
        """Return the command line that runs the agent's own program of that name."""
        return [Path(command[0]).name, *command[1:]]


def _meant(path: Path) -> str:
    """Return the path as sed takes it for itself."""
    return str(path).replace("\\", "\\\\").replace("&", "\\&").replace("|", "\\|")
