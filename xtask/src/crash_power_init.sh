#!/bin/sh
# The first process of the machine of `cargo xtask crash --kind power`.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# The kernel has booted.
echo "@B"
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --make-rshared /
ip link set lo up
modprobe overlay
mkdir -p /run/data
mount -t ext4 /dev/vdc /run/data || echo "@V the disk cannot be mounted"
seed=$(sed 's/.*crash.seed=\([0-9]*\).*/\1/' /proc/cmdline)
life=$(sed 's/.*crash.life=\([0-9]*\).*/\1/' /proc/cmdline)
# The line's own translation of line ends would only add bytes.
stty -onlcr 2>/dev/null
export GANTRY_TEST_SLOW=10 GANTRY_BIN_DIR=/gantry/bin GANTRY_WORKSPACE=/gantry
/gantry/bin/gantry-crash guest --data /run/data --notes /dev/vdd --seed "$seed" --life "$life" </dev/null
echo "@V the machine's part ended with $?"
tail -n 5 /run/crash/log
echo "@E"
# The first process never ends by itself.
while true; do sleep 10; done
