//! The default seccomp profile: which system calls a container may make.

use gantry_core::{Error, Result};
use serde_json::{Value, json};

use super::capabilities;
use crate::runtime::{Capability, LinuxSeccomp, Spec};

/// The lists, by condition. See the head of the file.
const LISTS: &str = include_str!("seccomp_default.txt");

/// Source: `linux/socket.h`. These two are barred: the kernel's crypto sockets have been a way to root (S29), and
/// virtual machine sockets do not belong to a network namespace.
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
/// Source: `linux/personality.h`: Linux, 32 bit, the old version string, both, and asking.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
/// Source: `linux/sched.h`: every flag of clone that makes a namespace, but that for time.
const CLONE_NEW_ANY: u64 = 0x7e02_0000;
/// Source: `asm-generic/errno.h`. A C library that sees it falls back to clone.
const ENOSYS: u64 = 38;

/// The default profile for the process of `spec`, of which the bounding capabilities count.
///
/// # Errors
/// None that can happen: the profile is fixed.
pub fn default_profile(spec: &Spec) -> Result<LinuxSeccomp> {
    profile_for(std::env::consts::ARCH, &capabilities::bounding(spec).into_iter().collect::<Vec<_>>())
}

fn profile_for(architecture: &str, held: &[Capability]) -> Result<LinuxSeccomp> {
    let mut rules = vec![allow(&list("always"))];
    // Of several conditions on one argument some runtimes make alternatives, so each range is a rule of its own; what
    // matches none gets the default action.
    rules.push(allow_if("socket", 0, AF_ALG, None, "SCMP_CMP_LT"));
    rules.push(allow_if("socket", 0, AF_ALG + 1, None, "SCMP_CMP_EQ"));
    rules.push(allow_if("socket", 0, AF_VSOCK, None, "SCMP_CMP_GT"));
    rules.extend(PERSONALITIES.map(|value| allow_if("personality", 0, value, None, "SCMP_CMP_EQ")));
    rules.push(allow(&list(&format!("arch:{architecture}"))));
    for capability in capabilities::ALL.iter().filter(|capability| held.contains(capability)) {
        rules.push(allow(&list(&format!("CAP_{capability}"))));
    }
    if !held.contains(&Capability::SysAdmin) {
        // Source: clone(2): s390 has its first two arguments the other way round.
        let flags = if architecture.starts_with("s390") { 1 } else { 0 };
        rules.push(allow_if("clone", flags, CLONE_NEW_ANY, Some(0), "SCMP_CMP_MASKED_EQ"));
        // The flags of clone3 are in memory, where no filter can look.
        rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    rules.retain(|rule| rule["names"].as_array().is_some_and(|names| !names.is_empty()));
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": architectures(architecture),
        "syscalls": rules,
    });
    serde_json::from_value(profile)
        .map_err(|error| Error::internal(format!("default seccomp profile: {error}")))
}

/// Reads a profile that somebody wrote.
///
/// # Errors
/// `InvalidArgument` if it is longer than 8 MiB or no profile.
pub fn parse(bytes: &[u8]) -> Result<LinuxSeccomp> {
    crate::json::decode("seccomp profile", bytes)
}

/// The names behind `condition`.
fn list(condition: &str) -> Vec<&'static str> {
    LISTS
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
        .filter(|(key, _)| *key == condition)
        .flat_map(|(_, names)| names.split_whitespace())
        .collect()
}

fn allow(names: &[&str]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

fn allow_if(name: &str, index: usize, value: u64, second: Option<u64>, operator: &str) -> Value {
    let mut argument = json!({ "index": index, "value": value, "op": operator });
    if let Some(second) = second {
        argument["valueTwo"] = second.into();
    }
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [argument] })
}

/// The architectures whose programs the kernel runs; none names just the native one.
fn architectures(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"],
        "s390x" => &["SCMP_ARCH_S390", "SCMP_ARCH_S390X"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "loongarch64" => &["SCMP_ARCH_LOONGARCH64"],
        "powerpc64" => &["SCMP_ARCH_PPC64LE"],
        _ => &["SCMP_ARCH_NATIVE"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_for(name: &str, held: &[Capability]) -> Vec<Value> {
        let profile = serde_json::to_value(profile_for("x86_64", held).unwrap()).unwrap();
        let all = profile["syscalls"].as_array().unwrap();
        all.iter()
            .filter(|rule| rule["names"].as_array().unwrap().iter().any(|one| one == name))
            .cloned()
            .collect()
    }

    /// What the rules for `socket` say about `family`.
    fn socket_allowed(family: u64) -> bool {
        rules_for("socket", &[]).iter().any(|rule| {
            let argument = &rule["args"][0];
            let value = argument["value"].as_u64().unwrap();
            match argument["op"].as_str().unwrap() {
                "SCMP_CMP_LT" => family < value,
                "SCMP_CMP_EQ" => family == value,
                "SCMP_CMP_GT" => family > value,
                other => panic!("{other}"),
            }
        })
    }

    #[test]
    fn s29_crypto_and_vm_sockets_are_barred_and_others_are_not() {
        assert!(!socket_allowed(38), "AF_ALG");
        assert!(!socket_allowed(40), "AF_VSOCK");
        for family in [1, 2, 10, 16, 17, 37, 39, 41, 44] {
            assert!(socket_allowed(family), "{family}");
        }
    }

    #[test]
    fn what_needs_a_capability_comes_with_it() {
        for (name, capability) in [
            ("mount", Capability::SysAdmin),
            ("reboot", Capability::SysBoot),
            ("chroot", Capability::SysChroot),
            ("init_module", Capability::SysModule),
            ("bpf", Capability::Bpf),
            ("open_by_handle_at", Capability::DacReadSearch),
            ("kcmp", Capability::SysPtrace),
        ] {
            assert!(rules_for(name, &[]).is_empty(), "{name}");
            assert_eq!(rules_for(name, &[capability])[0]["action"], "SCMP_ACT_ALLOW", "{name}");
        }
    }

    #[test]
    fn new_namespaces_need_the_right_to_administrate() {
        let without = rules_for("clone", &[]);
        assert_eq!(without.len(), 1);
        assert_eq!(without[0]["args"][0]["op"], "SCMP_CMP_MASKED_EQ");
        assert_eq!(rules_for("clone3", &[])[0]["errnoRet"], 38);
        assert!(rules_for("unshare", &[]).is_empty());
        let with = rules_for("clone", &[Capability::SysAdmin]);
        assert_eq!((with.len(), with[0].get("args")), (1, None));
        assert_eq!(rules_for("clone3", &[Capability::SysAdmin])[0]["action"], "SCMP_ACT_ALLOW");
    }

    #[test]
    fn dangerous_calls_are_not_allowed_to_the_default_capabilities() {
        for name in [
            "add_key",
            "keyctl",
            "request_key",
            "kexec_load",
            "kexec_file_load",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "pivot_root",
            "swapon",
            "mount",
            "umount2",
            "setns",
            "unshare",
            "bpf",
            "perf_event_open",
            "open_by_handle_at",
            "move_mount",
            "fsopen",
            "init_module",
            "settimeofday",
            "iopl",
            "ioperm",
            "nfsservctl",
        ] {
            assert!(rules_for(name, capabilities::DEFAULT).is_empty(), "{name}");
        }
        for name in
            ["read", "openat2", "ptrace", "clone", "execve", "chroot", "arch_prctl", "rseq", "faccessat2"]
        {
            assert!(!rules_for(name, capabilities::DEFAULT).is_empty(), "{name}");
        }
    }

    #[test]
    fn every_architecture_has_a_profile() {
        for architecture in
            ["x86_64", "aarch64", "arm", "s390x", "riscv64", "powerpc64", "loongarch64", "sparc64"]
        {
            profile_for(architecture, capabilities::ALL).unwrap();
        }
    }
}
