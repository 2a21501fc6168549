#!/bin/sh
# Keeps what one host is made of, its disk and its control group, for as long as its test lives.
# keeper.sh IMAGE NAME: prints the control group once all is there, and takes all of it away when
# its standard input ends. The kernel closes that pipe however the test ends, so nothing stays.
# Run it in a mount namespace of its own: every mount goes with the last process in there.
set -eu
image=$1
name=$2

. "$(dirname "$0")/disk.sh"
# Without a group of its own a host would share the units' groups of every other one.
group=$(mktemp -d "/sys/fs/cgroup/penstock-$name-XXXXXX")
echo "$group"

read -r _ || true
while ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do
    echo 1 >"$group/cgroup.kill"
    sleep 0.02
done
