#!/bin/sh
# Process 1 of a test guest: makes it look like an ordinary small host, then leaves the jobs to the agent.
# What it prints goes to the console, never into a job's output.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

# The machine that packed a busybox of another architecture could not ask it for the names of its applets.
if [ ! -e /bin/mount ]; then
    /bin/busybox mount -t proc proc /proc && /bin/busybox --install -s && umount /proc
fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs $dir; done
mkdir -p /run/netns /run/lock
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf

# Reports travel over a virtio port; before 6.12 Debian's cloud kernels have its driver as a module.
modprobe -a virtio_pci virtio_console 2>/dev/null
modprobe -a inet_diag tcp_diag

ip link set lo up
hostname guest
echo 0 > /proc/sys/kernel/printk_ratelimit
echo 1 > /proc/sys/kernel/sysrq
echo 0 > /proc/sys/kernel/kptr_restrict
# A kernel that complains about itself must stop the test, not taint it.
echo 1 > /proc/sys/kernel/panic_on_oops

cd /root
/xtask/agent guest-agent || echo "xtask-init: the agent failed with status $?"
poweroff -f
