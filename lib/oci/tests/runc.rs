//! The specs built here, run by the installed runc.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test starts programs and ends at a surprise"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use gantry_oci::rootfs::Rootfs;
use gantry_oci::spec::{self, Seccomp, SpecOptions};
use gantry_testkit::{find_in_path, root};

/// Runs a container with `options` and returns what it printed.
fn run(id: &str, options: SpecOptions) -> String {
    let bundle = tempfile::tempdir().unwrap();
    let rootfs = bundle.path().join("rootfs");
    for dir in ["bin", "etc", "proc", "dev", "sys", "run", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::copy(find_in_path("busybox").expect("busybox-static is installed"), rootfs.join("bin/busybox"))
        .unwrap();
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nu:x:1000:1001::/home/u:/bin/sh\n")
        .unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nextra:x:2000:u\n").unwrap();
    let built = options.build("oci-test", id, Some(&Rootfs::open(&rootfs).unwrap())).unwrap();
    fs::write(bundle.path().join("config.json"), spec::to_bytes(&built).unwrap()).unwrap();
    let output = Command::new(find_in_path("runc").expect("runc is installed"))
        .arg("--root")
        .arg(bundle.path().join("state"))
        .args(["run", "--bundle"])
        .arg(bundle.path())
        .arg(id)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!Path::new("/sys/fs/cgroup/oci-test").join(id).exists());
    text
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec()
}

#[test]
fn runc_runs_the_default_spec_with_the_default_seccomp_profile() {
    root!();
    let status = run(
        "default",
        SpecOptions {
            args: shell("/bin/busybox cat /proc/self/status"),
            seccomp: Seccomp::Default,
            ..Default::default()
        },
    );
    // S09: nothing to inherit. And the filter is there.
    assert!(status.contains("CapInh:\t0000000000000000"), "{status}");
    assert!(status.contains("CapBnd:\t00000000a80425fb"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn s13_a_container_has_the_groups_of_its_user() {
    root!();
    for (user, groups) in [("u", "1001 2000"), ("1000", "1001 2000"), ("u:5", "5 2000"), ("1000:5", "5 2000")]
    {
        let printed = run(
            "groups",
            SpecOptions {
                args: shell("/bin/busybox grep Groups /proc/self/status"),
                user: Some(user.to_owned()),
                ..Default::default()
            },
        );
        assert_eq!(printed.trim(), format!("Groups:\t{groups}"), "{user}");
    }
}

#[test]
fn s14_powercap_is_empty_in_a_container() {
    root!();
    let printed = run(
        "masked",
        SpecOptions {
            args: shell(
                "/bin/busybox ls /sys/devices/virtual/powercap 2>/dev/null; /bin/busybox ls /sys/firmware; echo end",
            ),
            ..Default::default()
        },
    );
    assert_eq!(printed.trim(), "end");
}
