#!/bin/sh
# Keeps what one host is made of, its disk and its control group, for as long as its test lives.
# keeper.sh IMAGE NAME: prints the control group once all is there, and takes all of it away when
# its standard input ends. The kernel closes that pipe however the test ends, so nothing stays.
# Run it in a mount namespace of its own: every mount goes with the last process in there.
set -eu
image=$1
name=$2

mount --make-rprivate /
# One unified tree, whatever this machine has: hosts then see the same wherever the tests run.
umount -Rl /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 none /sys/fs/cgroup
# Where systemd-nspawn leaves its locks.
mkdir -p /run/systemd
mount -t tmpfs tmpfs /run/systemd
# The disk is memory above the image: it outlives a reboot and a power cut, and not the test.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/disk
mount -t overlay overlay -o "lowerdir=$image,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/disk
# Without a group of its own a host would share the units' groups of every other one.
group=$(mktemp -d "/sys/fs/cgroup/penstock-$name-XXXXXX")
echo "$group"

read -r _ || true
while ! find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do
    echo 1 >"$group/cgroup.kill"
    sleep 0.02
done
