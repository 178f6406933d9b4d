//! The specs built here, run by the installed runc.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "a test starts programs and ends at a surprise"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
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
    fs::write(rootfs.join("bin/ask"), crypto_socket()).unwrap();
    fs::set_permissions(rootfs.join("bin/ask"), fs::Permissions::from_mode(0o755)).unwrap();
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

/// A program that asks for a socket of the kernel's cryptography and ends with the number of the error, or with
/// 256 less the descriptor.
///
/// Source: elf(5), and the x86-64 system calls socket (41) and exit (60).
fn crypto_socket() -> Vec<u8> {
    let code: &[u8] = &[
        0xb8, 41, 0, 0, 0, // mov eax, socket
        0xbf, 38, 0, 0, 0, // mov edi, AF_ALG
        0xbe, 5, 0, 0, 0, // mov esi, SOCK_SEQPACKET
        0x31, 0xd2, // xor edx, edx
        0x0f, 0x05, // syscall
        0xf7, 0xd8, // neg eax
        0x89, 0xc7, // mov edi, eax
        0xb8, 60, 0, 0, 0, // mov eax, exit
        0x0f, 0x05, // syscall
    ];
    let (base, header) = (0x40_0000_u64, 64 + 56_u64);
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2_u16, 62].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([base + header, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
    let size = header + code.len() as u64;
    file.extend([1_u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([0, base, base, size, size, 0x1000].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(code);
    file
}

#[test]
fn s29_the_kernels_cryptography_is_out_of_reach() {
    root!();
    if !cfg!(target_arch = "x86_64") {
        gantry_testkit::skip!("the program of this test is for x86-64");
    }
    let ask = |seccomp| {
        let args = shell("/bin/ask; echo $?");
        run("crypto", SpecOptions { args, seccomp, ..Default::default() }).trim().parse::<i32>().unwrap()
    };
    // EAFNOSUPPORT where the kernel has none of it.
    let open = ask(Seccomp::Unconfined);
    assert!(open > 200 || open == 97, "{open}");
    // EPERM.
    assert_eq!(ask(Seccomp::Default), 1);
}
