# Runs a program as a child of process 1 of new namespaces; see isolate.rs.
#   $1    the stage: outer (join the test's cgroups), middle (leave their top free), inner (arrange the namespaces)
#   then  for outer and middle: the cgroup directories, and --
#   then  the program and its arguments
set -e
stage=$1
shift
if [ "$stage" = outer ]; then
    for dir in "$@"; do
        [ "$dir" = -- ] && break
        echo 0 > "$dir/cgroup.procs"
    done
    exec unshare --cgroup /bin/sh "$ISOLATE_SCRIPT" middle "$@"
fi
if [ "$stage" = middle ]; then
    while [ "$1" != -- ]; do
        # On v2 a group with processes in it cannot share out its controllers, so none stays at the top.
        if [ -e "$1/cgroup.controllers" ] && [ -n "$(cat "$1/cgroup.controllers")" ]; then
            mkdir "$1/init"
            echo 0 > "$1/init/cgroup.procs"
        fi
        shift
    done
    shift
    [ "$ISOLATE_NETWORK" = shared ] && net= || net=--net
    exec unshare --mount $net --pid --ipc --fork --kill-child --mount-proc --propagation private \
        /bin/sh "$ISOLATE_SCRIPT" inner "$@"
fi

mount -t tmpfs -o mode=0755 tmpfs /run
[ "$ISOLATE_NETWORK" = shared ] || ip link set lo up

# The cgroup file systems still show the machine's root: mount them again, so that they begin at ours.
if [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]; then
    umount -R -l /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
    done
else
    groups=$(awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 " " $3 " " $4 }' /proc/self/mounts)
    umount -R -l /sys/fs/cgroup
    mount -t tmpfs -o mode=0755 tmpfs /sys/fs/cgroup
    echo "$groups" | while read -r point kind options; do
        mkdir -p "$point"
        if [ "$kind" = cgroup2 ]; then
            mount -t cgroup2 cgroup2 "$point"
        else
            controllers=$(echo "$options" | tr , '\n' | grep -v -x -E 'rw|ro|nosuid|nodev|noexec|relatime|noatime|xattr|release_agent=.*|clone_children' | paste -s -d ,)
            mount -t cgroup -o "$controllers" cgroup "$point"
        fi
    done
fi

# What mount and umount noted about the above.
rm -rf /run/mount

# Not exec: process 1 has to reap what the program's orphans leave.
"$@"
code=$?
exit $code
