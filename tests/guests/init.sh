#!/bin/busybox sh
# The first process of a guest, run twice: from the first root, to reach the disks, and then from the
# root disk, to make it a usual Linux, run one command, say how it ended and switch off. The console
# is for complaints; /dev/ttyS1 has the command's output, /dev/ttyS2 its report and exit code.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

off() {
    [ -z "${1:-}" ] || echo "guest: $1" >/dev/console
    sync
    exec /bin/busybox poweroff -f
}

first() {
    /bin/busybox --install -s /bin
    mount -t devtmpfs dev /dev
    for module in /modules/*.ko; do
        insmod "$module" || off "$module cannot be loaded"
    done
    tries=0
    until [ -b /dev/vdc ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || off "the disks did not appear"
        sleep 0.1
    done
    . /guest/settings
    mount -t ext4 -o ro /dev/vda /new || off "no root"
    mount -t ext4 -o ro /dev/vdb /new/usr/lib/modules || off "no modules"
    mount -t ext4 /dev/vdc "/new$CHECKOUT" || off "no checkout"
    mount -o bind /new/venv "/new$CHECKOUT/.venv"
    mount -o move /dev /new/dev
    mount -t tmpfs -o mode=755 run /new/run
    mv /guest /new/run/guest
    cp /init /new/run/guest/init
    exec switch_root /new /bin/busybox sh /run/guest/init second
}

cgroups() {
    if [ "$CGROUPS" = v1 ]; then
        mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
        for each in cpu memory pids net_cls,net_prio; do
            mkdir "/sys/fs/cgroup/$each"
            mount -t cgroup -o "$each" cgroup "/sys/fs/cgroup/$each"
        done
    else
        mount -t cgroup2 cgroup /sys/fs/cgroup
    fi
}

second() {
    . /run/guest/settings
    mount -t proc proc /proc
    mount -t sysfs sys /sys
    mount -t bpf bpf /sys/fs/bpf
    mkdir -p /dev/shm /dev/pts
    mount -t devpts devpts /dev/pts
    for place in /tmp /var/tmp /root /dev/shm; do
        mount -t tmpfs -o mode=1777 tmpfs "$place"
    done
    ln -s /proc/self/fd /dev/fd
    cgroups
    # Netlink asks for most modules by itself; what is named here is asked for by nobody.
    for module in veth bridge br_netfilter 8021q dummy sch_ingress cls_bpf cls_u32 nf_tables; do
        /sbin/modprobe "$module" || off "module $module cannot be loaded"
    done
    ip link set lo up
    for port in /dev/ttyS1 /dev/ttyS2; do
        stty raw -echo -F "$port" 115200
    done
    cd "$CHECKOUT" || off "no checkout"
    export HOME=/root LANG=C.UTF-8 TERM=dumb
    /usr/bin/setsid /bin/sh /run/guest/command </dev/null >/dev/ttyS1 2>&1
    echo "exit $?" >/dev/ttyS2
    stty -F /dev/ttyS2 drain 2>/dev/null
    off
}

if [ "${1:-}" = second ]; then second; else first; fi
off "the end was reached by no known way"
