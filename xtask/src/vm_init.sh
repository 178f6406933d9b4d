#!/bin/sh
# The first process of the machine that `cargo xtask vm` boots.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=000 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
hostname gantry-vm
echo 127.0.0.1 localhost gantry-vm > /etc/hosts
modprobe -a overlay veth bridge loop

# Everything is many times slower here, so all waits grow by one factor.
export GANTRY_TEST_ROOT=1 GANTRY_TEST_SLOW=10 GANTRY_TEST_SKIPS=/tmp/skipped
export GANTRY_BIN_DIR=/gantry/bin GANTRY_GO_BIN=/gantry/go GANTRY_WORKSPACE=/gantry GANTRY_E2E_DAEMON=@DAEMON@
export GANTRY_RUNTIME_HELPER=/gantry/bin/gantry-runtime-helper
code=0
for tests in @TESTS@; do
    /gantry/bin/$tests --color=never --test-threads=2 @ARGS@ </dev/null 2>&1 || code=$?
done
[ -f /tmp/skipped ] && sed 's/^/GANTRY-VM-SKIPPED /' /tmp/skipped
echo "GANTRY-VM-EXIT $code"
sync
echo o > /proc/sysrq-trigger
# The first process never ends by itself.
while true; do sleep 10; done
