use std::collections::BTreeSet;

use gantry_core::ErrorKind;
use serde_json::{Value, json};

use super::*;
use crate::ImageConfig;
use crate::rootfs::Rootfs;
use crate::runtime::Capability;

fn built(options: &SpecOptions) -> Value {
    serde_json::to_value(options.build("ns", "id", None).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn set(value: &Value) -> BTreeSet<String> {
    strings(value).into_iter().collect()
}

/// What `ctr oci spec` of containerd 1.6 prints, with the differences of 2.2: the version, and powercap masked.
#[test]
fn the_default_spec_is_the_one_of_containerds_client() {
    let mut spec = serde_json::to_value(default::linux("ns", "id").unwrap()).unwrap();
    let expected_capabilities = BTreeSet::from(
        [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ]
        .map(|name| format!("CAP_{name}")),
    );
    let sets = spec["process"]["capabilities"].take();
    assert_eq!(sets.as_object().unwrap().keys().collect::<Vec<_>>(), ["bounding", "effective", "permitted"]);
    for name in ["bounding", "effective", "permitted"] {
        assert_eq!(set(&sets[name]), expected_capabilities);
    }
    let flags = ["nosuid", "noexec", "nodev"];
    let tmpfs = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let expected = json!({
        "ociVersion": "1.3.0",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "capabilities": null,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": flags },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": tmpfs },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": flags },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": tmpfs },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "cgroupsPath": "/ns/id",
            "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }, { "type": "network" }],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware",
                "/sys/devices/virtual/powercap", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    });
    assert_eq!(spec, expected);
}

#[test]
fn s09_inheritable_capabilities_stay_empty_whatever_is_asked_for() {
    for options in [
        SpecOptions::default(),
        SpecOptions { privileged: true, without_host_devices: true, ..Default::default() },
        SpecOptions { added_capabilities: vec![Capability::SysAdmin], ..Default::default() },
        SpecOptions { capabilities: CapabilityChoice::Current, ..Default::default() },
    ] {
        let sets = built(&options)["process"]["capabilities"].take();
        assert_eq!(sets.get("inheritable"), None);
        assert_eq!(sets.get("ambient"), None);
    }
}

#[test]
fn s14_powercap_is_masked() {
    let masked = built(&SpecOptions::default())["linux"]["maskedPaths"].take();
    assert!(set(&masked).contains("/sys/devices/virtual/powercap"));
}

#[test]
fn names_that_lead_out_of_the_cgroup_are_refused() {
    for (namespace, id) in [("..", "id"), ("ns", "../x"), ("ns", ""), ("a/b", "id"), ("ns", ".")] {
        assert_eq!(default::linux(namespace, id).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn an_image_says_how_its_containers_start() {
    let image = ImageConfig::parse(
        br#"{"config":{"Env":["PATH=/p","A=1"],"Entrypoint":["/e"],"Cmd":["c"],"WorkingDir":"srv","User":"7:8"}}"#,
    )
    .unwrap();
    let spec = built(&SpecOptions {
        env: vec!["A=2".into(), "B=3".into()],
        ..SpecOptions::from_image(image.clone())
    });
    let process = &spec["process"];
    assert_eq!(strings(&process["args"]), ["/e", "c"]);
    assert_eq!(strings(&process["env"]), ["PATH=/p", "A=2", "B=3"]);
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["user"], json!({ "uid": 7, "gid": 8, "additionalGids": [8] }));
    let with = |options: SpecOptions| strings(&built(&options)["process"]["args"]);
    assert_eq!(
        with(SpecOptions { command: vec!["x".into()], ..SpecOptions::from_image(image.clone()) }),
        ["/e", "x"]
    );
    assert_eq!(with(SpecOptions { args: vec!["x".into()], ..SpecOptions::from_image(image) }), ["x"]);
}

#[test]
fn s13_groups_of_the_images_files_reach_the_spec() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/:\nu:x:10:11::/:\n").unwrap();
    std::fs::write(dir.path().join("etc/group"), "a:x:20:u\nb:x:21:root\nc:x:22:\n").unwrap();
    let rootfs = Rootfs::open(dir.path()).unwrap();
    let user_of = |options: SpecOptions| {
        serde_json::to_value(options.build("ns", "id", Some(&rootfs)).unwrap()).unwrap()["process"]["user"]
            .take()
    };
    let named = SpecOptions {
        user: Some("u".into()),
        additional_groups: vec!["c".into(), "9".into()],
        ..Default::default()
    };
    assert_eq!(user_of(named), json!({ "uid": 10, "gid": 11, "additionalGids": [11, 20, 22, 9] }));
    let root = SpecOptions::from_image(ImageConfig::default());
    assert_eq!(user_of(root), json!({ "uid": 0, "gid": 0, "additionalGids": [0, 21] }));
}

#[test]
fn a_name_without_a_root_file_system_cannot_be_looked_up() {
    let options = SpecOptions { user: Some("u".into()), ..Default::default() };
    assert_eq!(options.build("ns", "id", None).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    let options = SpecOptions { user: Some("99999999999".into()), ..Default::default() };
    assert_eq!(options.build("ns", "id", None).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let options = SpecOptions { user: Some("5".into()), ..Default::default() };
    assert_eq!(built(&options)["process"]["user"], json!({ "uid": 5, "gid": 0, "additionalGids": [0] }));
}

#[test]
fn a_terminal_brings_its_name_unless_one_is_given() {
    let spec = built(&SpecOptions { terminal: true, console_size: Some((80, 24)), ..Default::default() });
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["consoleSize"], json!({ "width": 80, "height": 24 }));
    assert!(set(&spec["process"]["env"]).contains("TERM=xterm"));
    let spec = built(&SpecOptions { terminal: true, env: vec!["TERM=vt100".into()], ..Default::default() });
    assert!(!set(&spec["process"]["env"]).contains("TERM=xterm"));
}

#[test]
fn the_hosts_network_comes_with_its_files_and_name() {
    let spec = built(&SpecOptions { host_network: true, ..Default::default() });
    let kinds: Vec<_> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(kinds, ["pid", "ipc", "uts", "mount"]);
    let last = spec["mounts"].as_array().unwrap().last().unwrap();
    assert_eq!(
        *last,
        json!({ "destination": "/etc/resolv.conf", "type": "bind", "source": "/etc/resolv.conf", "options": ["rbind", "ro"] })
    );
    assert!(strings(&spec["process"]["env"]).iter().any(|entry| entry.starts_with("HOSTNAME=")));
}

#[test]
fn limits_land_in_the_resources() {
    let spec = built(&SpecOptions {
        memory: Memory { limit_bytes: Some(64 << 20), ..Default::default() },
        cpu: Cpu { cpus: Some("0".into()), ..Default::default() }.with_cpus(1.5).unwrap(),
        pids_limit: Some(100),
        rlimits: vec![(PosixRlimitType::RlimitNofile, 10, 20), (PosixRlimitType::RlimitCore, 0, 0)],
        cgroup: Some("/a/b".into()),
        ..Default::default()
    });
    let resources = &spec["linux"]["resources"];
    assert_eq!(resources["memory"], json!({ "limit": 64 << 20 }));
    assert_eq!(resources["cpu"], json!({ "quota": 150000, "period": 100000, "cpus": "0" }));
    assert_eq!(resources["pids"], json!({ "limit": 100 }));
    assert_eq!(spec["linux"]["cgroupsPath"], "/a/b");
    assert_eq!(
        spec["process"]["rlimits"],
        json!([{ "type": "RLIMIT_NOFILE", "hard": 20, "soft": 10 }, { "type": "RLIMIT_CORE", "hard": 0, "soft": 0 }])
    );
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        Cpu::default().with_cpus(cpus).unwrap_err();
    }
    set_rlimit(&mut default::linux("ns", "id").unwrap(), PosixRlimitType::RlimitCore, 2, 1).unwrap_err();
}

#[test]
fn new_privileges_are_allowed_by_leaving_the_word_out() {
    let spec = built(&SpecOptions { allow_new_privileges: true, ..Default::default() });
    assert_eq!(spec["process"].get("noNewPrivileges"), None);
}

#[test]
fn a_privileged_container_is_not_confined() {
    let spec = built(&SpecOptions { privileged: true, ..Default::default() });
    assert_eq!(spec["linux"].get("maskedPaths"), None);
    assert_eq!(spec["linux"].get("readonlyPaths"), None);
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    let devices = spec["linux"]["devices"].as_array().unwrap();
    assert!(
        devices
            .iter()
            .any(|device| device["path"] == "/dev/null" && device["major"] == 1 && device["minor"] == 3)
    );
    assert!(!devices.iter().any(|device| device["path"].as_str().unwrap().starts_with("/dev/pts/")));
    let sys = spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == "/sys").unwrap();
    assert_eq!(strings(&sys["options"]).last().unwrap(), "rw");
    let bare = SpecOptions { without_host_devices: true, ..Default::default() };
    bare.build("ns", "id", None).unwrap_err();
}

#[test]
fn a_device_is_added_with_its_rule() {
    let request = devices::DeviceRequest {
        path: "/dev/zero".into(),
        container_path: Some("/dev/z".into()),
        access: "rw".into(),
    };
    let spec = built(&SpecOptions { devices: vec![request.clone()], ..Default::default() });
    assert_eq!(spec["linux"]["devices"][0]["path"], "/dev/z");
    let rule = spec["linux"]["resources"]["devices"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(rule, json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rw" }));
    let mut spec = default::linux("ns", "id").unwrap();
    for (path, access, kind) in [
        ("/etc/passwd", "rwm", ErrorKind::InvalidArgument),
        ("/dev/zero", "x", ErrorKind::InvalidArgument),
        ("/dev/zero", "", ErrorKind::InvalidArgument),
        ("/dev/absent-device", "r", ErrorKind::NotFound),
    ] {
        let request =
            devices::DeviceRequest { path: path.into(), container_path: None, access: access.into() };
        assert_eq!(devices::add(&mut spec, &request).unwrap_err().kind(), kind, "{path} {access}");
    }
}

#[test]
fn capabilities_are_added_and_dropped() {
    let spec = built(&SpecOptions {
        capabilities: CapabilityChoice::None,
        added_capabilities: vec![Capability::NetAdmin, Capability::Chown],
        dropped_capabilities: vec![Capability::Chown],
        ..Default::default()
    });
    assert_eq!(strings(&spec["process"]["capabilities"]["effective"]), ["CAP_NET_ADMIN"]);
    assert_eq!(capabilities::parse("net_admin").unwrap(), Capability::NetAdmin);
    assert_eq!(capabilities::parse("CAP_NET_ADMIN").unwrap(), Capability::NetAdmin);
    assert_eq!(capabilities::parse("bogus").unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(capabilities::ALL.len(), 41);
}

#[test]
fn the_default_seccomp_profile_sees_added_capabilities() {
    let names = |options: SpecOptions| -> BTreeSet<String> {
        let spec = built(&SpecOptions { seccomp: Seccomp::Default, ..options });
        let rules = spec["linux"]["seccomp"]["syscalls"].as_array().unwrap().clone();
        rules.iter().flat_map(|rule| strings(&rule["names"])).collect()
    };
    assert!(!names(SpecOptions::default()).contains("mount"));
    assert!(
        names(SpecOptions { added_capabilities: vec![Capability::SysAdmin], ..Default::default() })
            .contains("mount")
    );
    assert_eq!(built(&SpecOptions::default())["linux"].get("seccomp"), None);
}

#[test]
fn sysctls_need_a_namespace_of_the_containers_own() {
    let try_one = |key: &str, value: &str, options: SpecOptions| {
        SpecOptions { sysctls: [(key.to_owned(), value.to_owned())].into(), ..options }
            .build("ns", "id", None)
    };
    try_one("net.ipv4.ip_forward", "1", SpecOptions::default()).unwrap();
    try_one("kernel.shmmax", "1", SpecOptions::default()).unwrap();
    for (key, value) in [
        ("kernel.core_pattern", "|/x"),
        ("kernel.shmmax", "1+kernel.core_pattern=|/x"),
        ("net..x", "1"),
        ("net.x\n", "1"),
        ("net/../kernel/core_pattern", "1"),
        ("", "1"),
        ("vm.swappiness", "1"),
    ] {
        assert_eq!(
            try_one(key, value, SpecOptions::default()).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{key}"
        );
    }
    try_one("net.ipv4.ip_forward", "1", SpecOptions { host_network: true, ..Default::default() })
        .unwrap_err();
}

#[test]
fn files_and_namespaces_are_changed_as_asked() {
    let spec = built(&SpecOptions {
        readonly_rootfs: true,
        removed_mounts: vec!["/run/".into()],
        mounts: vec![mount("/data", "bind", "/srv", &["rbind", "rw"])],
        shm_size_bytes: Some(1024),
        hostname: Some("h".into()),
        namespaces: vec![
            (LinuxNamespaceType::Network, Some("/run/netns/x".into())),
            (LinuxNamespaceType::Cgroup, None),
        ],
        user_namespace: Some(UserNamespace { uids: vec![(0, 1000, 10)], gids: vec![(0, 2000, 10)] }),
        annotations: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    });
    assert_eq!(spec["root"], json!({ "path": "rootfs", "readonly": true }));
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(!mounts.iter().any(|mount| mount["destination"] == "/run"));
    assert_eq!(mounts.last().unwrap()["destination"], "/data");
    assert!(
        mounts
            .iter()
            .any(|mount| mount["destination"] == "/dev/shm" && set(&mount["options"]).contains("size=1024"))
    );
    assert_eq!(spec["hostname"], "h");
    assert_eq!(spec["linux"]["namespaces"][4], json!({ "type": "network", "path": "/run/netns/x" }));
    assert_eq!(spec["linux"]["uidMappings"], json!([{ "hostID": 1000, "containerID": 0, "size": 10 }]));
    assert_eq!(spec["annotations"], json!({ "k": "v" }));
    let relative = SpecOptions { mounts: vec![mount("data", "bind", "/srv", &[])], ..Default::default() };
    relative.build("ns", "id", None).unwrap_err();
    let wrapping = SpecOptions {
        user_namespace: Some(UserNamespace { uids: vec![(0, u32::MAX, 2)], gids: vec![] }),
        ..Default::default()
    };
    wrapping.build("ns", "id", None).unwrap_err();
}

#[test]
fn a_spec_survives_being_written_and_read() {
    let spec =
        SpecOptions { seccomp: Seccomp::Default, ..Default::default() }.build("ns", "id", None).unwrap();
    assert_eq!(parse(&to_bytes(&spec).unwrap()).unwrap(), spec);
    assert_eq!(parse(b"[]").unwrap_err().kind(), ErrorKind::InvalidArgument);
}
