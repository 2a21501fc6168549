# Sourced, with $image set, in a mount namespace of its own: the disk at /mnt/disk that a host is booted from.
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
