//! Where mounts may go.

use std::path::{Path, PathBuf};

use gantry_core::{Error, Result};
use serde_json::Value;

use super::links;
use crate::spec::{list, text};

/// Source: `PROC_SUPER_MAGIC` of the kernel's `linux/magic.h`.
const PROC_MAGIC: i64 = 0x9fa0;

/// What may be mounted below `/proc`: figures that others show in place of the machine's. Source: what runc allows.
const BELOW_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
];

/// Checks every mount's destination against the image in `root`.
///
/// # Errors
/// `InvalidArgument`, naming the mount.
pub(super) fn check(root: &Path, spec: &Value) -> Result<()> {
    for (number, mount) in list(spec, "/mounts").iter().enumerate() {
        one(root, mount).map_err(|what| Error::invalid_argument(format!("mounts[{number}]: {what}")))?;
    }
    Ok(())
}

fn one(root: &Path, mount: &Value) -> Result<(), String> {
    let destination = text(mount, "/destination").unwrap_or_default();
    if destination.is_empty() || destination.contains('\0') {
        return Err(format!("destination {destination:?} is no path"));
    }
    let walked = links::walk(root, Path::new(destination));
    let kind = text(mount, "/type").unwrap_or_default();
    if walked.magic {
        return Err(format!("destination {destination:?} leads to {:?}", walked.path));
    }
    if walked.path == Path::new("/") {
        return Err(format!("destination {destination:?} is the root itself"));
    }
    // Whoever chooses what is mounted in its place chooses what the runtime writes to (CVE-2019-19921 and its likes).
    if matches!(kind, "proc" | "sysfs") && walked.linked {
        return Err(format!("a link of the image leads {kind} from {destination:?} to {:?}", walked.path));
    }
    if walked.path == Path::new("/proc") && kind != "proc" && !is_procfs(mount) {
        return Err(format!("destination {destination:?} is to be of type proc"));
    }
    if walked.path != Path::new("/proc")
        && walked.path.starts_with("/proc")
        && !BELOW_PROC.iter().any(|allowed| walked.path == Path::new(allowed))
    {
        return Err(format!("destination {destination:?} is below /proc"));
    }
    Ok(())
}

/// Whether a bind mount brings another procfs.
fn is_procfs(mount: &Value) -> bool {
    let bind = list(mount, "/options").iter().any(|option| option == "bind" || option == "rbind");
    let source = PathBuf::from(text(mount, "/source").unwrap_or_default());
    bind && rustix::fs::statfs(&source).is_ok_and(|found| found.f_type == PROC_MAGIC)
        // The root of it, and not one of its directories. Source: procfs numbers its root 1.
        && rustix::fs::stat(&source).is_ok_and(|found| found.st_ino == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    #[test]
    fn proc_is_proc_and_the_root_stays() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("evil/proc")).unwrap();
        symlink("/proc", root.path().join("alias")).unwrap();
        symlink("/evil/proc", root.path().join("linked")).unwrap();
        symlink("/", root.path().join("top")).unwrap();
        let say = |destination: &str, kind: &str, source: &str| {
            let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
            let mount =
                json!({"destination": destination, "type": kind, "source": source, "options": options});
            check(root.path(), &json!({"mounts": [mount]}))
        };
        for (destination, kind, source) in [
            ("/proc", "bind", "/tmp"),
            ("/proc", "tmpfs", "tmpfs"),
            ("/proc", "bind", "/proc/self"),
            ("/x/../proc/", "tmpfs", "tmpfs"),
            ("/alias", "tmpfs", "tmpfs"),
            ("/proc/sys", "bind", "/tmp"),
            ("/alias/self/attr", "bind", "/tmp"),
            ("/proc/self/fd/7", "bind", "/tmp"),
            ("/linked", "proc", "proc"),
            ("/linked", "sysfs", "sysfs"),
            ("/", "bind", "/tmp"),
            ("/top", "bind", "/tmp"),
            ("/x/..", "bind", "/tmp"),
            ("", "bind", "/tmp"),
            ("/a\0b", "bind", "/tmp"),
        ] {
            let error = say(destination, kind, source).unwrap_err();
            assert!(error.to_string().starts_with("mounts[0]: "), "{destination}: {error}");
        }
        for (destination, kind, source) in [
            ("/proc", "proc", "proc"),
            ("/proc", "bind", "/proc"),
            ("/proc/uptime", "bind", "/tmp/uptime"),
            ("/sys", "sysfs", "sysfs"),
            ("/linked", "bind", "/tmp"),
            ("/process", "bind", "/tmp"),
            ("relative", "tmpfs", "tmpfs"),
        ] {
            say(destination, kind, source).unwrap();
        }
    }
}
