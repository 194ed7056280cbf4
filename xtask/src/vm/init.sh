#!/bin/busybox sh
# The first process of a guest: makes the machine that trials expect, runs them on the second serial
# line, and turns the machine off. Kernel messages go to the first one.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/bin/busybox --install -s /bin

# Nobody can pivot away from the root that the kernel unpacks, which a container runtime must. From a
# bind mount of it on top of it, anybody can.
if [ "$1" != inside ]; then
    mount -o bind / /mnt
    cd /mnt
    mount -o move . /
    exec chroot . /init inside
fi
cd /

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
# The repository has the place that it has outside, which may be below /tmp: that must not be covered.
[ -n "$(ls /tmp)" ] || mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
ln -s /proc/self/fd /dev/fd
ip link set lo up
hostname guest

stty -F /dev/ttyS1 raw
exec < /dev/null > /dev/ttyS1 2>&1
read -r up _ < /proc/uptime
echo "guest: up for $up s, kernel $(uname -r)"
sh /trials
echo "guest: over"
# The line empties before the machine goes.
stty -F /dev/ttyS1 raw
poweroff -f
