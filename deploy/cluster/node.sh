#!/bin/sh
# Process 1 of a node: it has pid, mount, cgroup, uts and ipc namespaces of its own, in the network of its host.
# usage: node.sh NAME DISK CONTROLLERS FOLDER ...
# DISK becomes its root, and outlives it, as a disk does. Of this machine it sees the programs, read-only, at
# their own places: /usr and each FOLDER. What starts and keeps its services is in /etc/node of its disk.
set -eu
name=$1 disk=$2 controllers=$3
shift 3
# A folder of this machine, which the node has not: its programs would find no place for temporary files.
unset TMPDIR
hostname "$name"

# A root of its own, which nothing outside of it sees and which holds nothing of ours back when it is gone.
mount --make-rprivate /
mount --bind "$disk" "$disk"
mkdir -p "$disk/proc" "$disk/sys" "$disk/dev" "$disk/run" "$disk/tmp" "$disk/usr" "$disk/.before"
mount --rbind /dev "$disk/dev"
mount -t proc proc "$disk/proc"
mount -t sysfs sysfs "$disk/sys"
mount -t tmpfs -o mode=755 run "$disk/run"
mount -t tmpfs -o mode=1777 tmp "$disk/tmp"
for folder in /usr "$@"; do
    mkdir -p "$disk$folder"
    mount --bind "$folder" "$disk$folder"
    mount -o remount,bind,ro "$disk$folder"
done
cd "$disk"
pivot_root . .before
umount -l /.before
mount --make-rshared /
mkdir -p /run/lock /var/lib /var/log

mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for controller in $controllers; do
    place=/sys/fs/cgroup/${controller#name=}
    mkdir "$place"
    case $controller in name=*) controller=none,$controller ;; esac
    mount -t cgroup -o "$controller" cgroup "$place"
done

# The kubelet would set these of the whole machine where they are not as it wants; here it reads that they are.
# And it reads that each start of the node is another boot.
for pair in "kernel/random/boot_id:$(cat /proc/sys/kernel/random/uuid)" vm/overcommit_memory:1 vm/panic_on_oom:0 kernel/panic:10 kernel/panic_on_oops:1 \
    kernel/keys/root_maxkeys:1000000 kernel/keys/root_maxbytes:25000000; do
    file=/run/sysctl/${pair%:*}
    mkdir -p "${file%/*}"
    echo "${pair#*:}" >"$file"
    mount --bind "$file" "/proc/sys/${pair%:*}"
done

# A service is a file of that name whose text becomes it; it is started again a second after it ended, as long
# as no file NAME.held lies beside it.
keep() {
    service=$(basename "$1" .service)
    while :; do
        [ -e "$1.held" ] || sh "$1" >>"/var/log/$service.log" 2>&1 || :
        sleep 1
    done
}
for service in /etc/node/*.service; do
    keep "$service" &
done
while :; do wait || :; done
