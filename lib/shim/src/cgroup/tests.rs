use super::*;

const HYBRID: &str = "\
25 30 0:23 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
26 25 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
27 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:26 /inner /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
29 25 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

#[test]
fn a_hybrid_system_is_version_one() {
    let found =
        Cgroups::parse("5:memory:/inner/a/b\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a/b\n0::/a/b\n", HYBRID)
            .unwrap();
    let Cgroups::V1(dirs) = found else { panic!("{found:?}") };
    assert_eq!(dirs["memory"], Path::new("/sys/fs/cgroup/memory/a/b"));
    assert_eq!(dirs["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
    assert_eq!(dirs["systemd"], Path::new("/sys/fs/cgroup/systemd/a/b"));
}

#[test]
fn one_hierarchy_is_version_two() {
    let mounts = "26 25 0:24 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let found = Cgroups::parse("0::/x/y\n", mounts).unwrap();
    assert_eq!(found, Cgroups::V2("/sys/fs/cgroup/x/y".into()));
    assert!(Cgroups::parse("0::/../x\n", mounts).is_err());
}

#[test]
fn version_one_figures_are_read() {
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("memory.stat", "cache 1\nrss 2\ntotal_rss 3\nhierarchical_memsw_limit 4\n");
    put("memory.usage_in_bytes", "77\n");
    put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
    put("cpuacct.usage", "123\n");
    put("cpuacct.stat", "user 3\nsystem 4\n");
    put("cpuacct.usage_percpu", "60 63 \n");
    put("pids.max", "max\n");
    put("pids.current", "9\n");
    put("blkio.throttle.io_serviced_recursive", "8:0 Read 11\n8:0 Write 12\nTotal 23\n");
    put("hugetlb.2MB.usage_in_bytes", "6\n");
    let all = ["memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb"];
    let dirs = all.iter().map(|name| ((*name).to_owned(), dir.path().to_owned())).collect();
    let any = Cgroups::V1(dirs).metrics().unwrap();
    let read = gantry_api::io::containerd::cgroups::v1::Metrics::decode(any.value).unwrap();
    let memory = read.memory.unwrap();
    assert_eq!((memory.cache, memory.rss, memory.total_rss, memory.usage.unwrap().usage), (1, 2, 3, 77));
    assert_eq!(read.memory_oom_control.unwrap().oom_kill, 5);
    let usage = read.cpu.unwrap().usage.unwrap();
    assert_eq!(
        (usage.total, usage.user, usage.kernel, usage.per_cpu),
        (123, 30_000_000, 40_000_000, vec![60, 63])
    );
    assert_eq!((read.pids.as_ref().unwrap().limit, read.pids.unwrap().current), (0, 9));
    let io = read.blkio.unwrap().io_serviced_recursive;
    assert_eq!(
        io.iter().map(|entry| (entry.op.as_str(), entry.value)).collect::<Vec<_>>(),
        [("Read", 11), ("Write", 12)]
    );
    assert_eq!((read.hugetlb[0].pagesize.as_str(), read.hugetlb[0].usage), ("2MB", 6));
}

#[test]
fn version_two_figures_are_read() {
    use prost::Message;
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    put("memory.current", "10\n");
    put("memory.max", "max\n");
    put("memory.stat", "anon 1\nworkingset_refault_anon 2\nworkingset_refault_file 3\n");
    put("memory.events", "low 0\noom 1\noom_kill 2\n");
    put("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
    put("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n");
    put("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n");
    let any = Cgroups::V2(dir.path().to_owned()).metrics().unwrap();
    let read = gantry_api::io::containerd::cgroups::v2::Metrics::decode(any.value).unwrap();
    let memory = read.memory.unwrap();
    assert_eq!(
        (memory.usage, memory.usage_limit, memory.anon, memory.workingset_refault),
        (10, u64::MAX, 1, 5)
    );
    assert_eq!(read.memory_events.unwrap().oom_kill, 2);
    let cpu = read.cpu.unwrap();
    let psi = cpu.psi.unwrap();
    assert_eq!((cpu.usage_usec, psi.some.unwrap().total, psi.full), (5, 7, None));
    assert_eq!((read.io.as_ref().unwrap().usage[0].wbytes, read.io.unwrap().usage[0].rios), (2, 3));
}

#[test]
fn cgroups_that_are_gone_are_not_found() {
    let gone = Cgroups::V2("/sys/fs/cgroup/no/such".into());
    assert_eq!(gone.metrics().unwrap_err().kind(), gantry_core::ErrorKind::NotFound);
    assert!(gone.pids().unwrap().is_empty());
}
