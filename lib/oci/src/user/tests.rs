use std::fs;
use std::os::unix::fs::symlink;

use gantry_core::ErrorKind;
use tempfile::TempDir;

use super::*;

const PASSWD_TEXT: &str = "# people\nroot:x:0:0:root:/root:/bin/sh\n\nu:x:1000:1000:U:/home/u:/bin/sh\n\
    99999999999:x:0:0::/:/bin/sh\nwrap:x:4294967296:0::/:\nbadgid:x:7:x::/:\n+nis::::::\nshort\n";
const GROUP_TEXT: &str = "root:x:0:\nu:x:1000:\nextra:x:2000:u,other\n# no:x:9:u\nmore:x:2001:root, u\ng:x:3000:\n\
    twice:x:2000:u\nhuge:x:4294967296:\n";

fn image(passwd: Option<&str>, group: Option<&str>) -> (TempDir, Rootfs) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("etc")).unwrap();
    for (name, text) in [("etc/passwd", passwd), ("etc/group", group)] {
        if let Some(text) = text {
            fs::write(dir.path().join(name), text).unwrap();
        }
    }
    let rootfs = Rootfs::open(dir.path()).unwrap();
    (dir, rootfs)
}

fn fixture() -> (TempDir, Rootfs) {
    image(Some(PASSWD_TEXT), Some(GROUP_TEXT))
}

fn ids(rootfs: &Rootfs, user: &str) -> (u32, u32, Vec<u32>) {
    let found = resolve(rootfs, user).unwrap();
    (found.uid, found.gid, found.additional_gids)
}

fn kind(rootfs: &Rootfs, user: &str) -> ErrorKind {
    resolve(rootfs, user).unwrap_err().kind()
}

#[test]
fn s13_every_form_of_user_has_its_primary_group_and_all_memberships() {
    let (_dir, rootfs) = fixture();
    assert_eq!(ids(&rootfs, "u"), (1000, 1000, vec![1000, 2000, 2001]));
    assert_eq!(ids(&rootfs, "1000"), (1000, 1000, vec![1000, 2000, 2001]));
    assert_eq!(ids(&rootfs, "u:g"), (1000, 3000, vec![3000, 2000, 2001]));
    assert_eq!(ids(&rootfs, "1000:3001"), (1000, 3001, vec![3001, 2000, 2001]));
    assert_eq!(ids(&rootfs, "u:3001"), (1000, 3001, vec![3001, 2000, 2001]));
    assert_eq!(ids(&rootfs, "1000:g"), (1000, 3000, vec![3000, 2000, 2001]));
    assert_eq!(ids(&rootfs, ""), (0, 0, vec![0, 2001]));
    assert_eq!(ids(&rootfs, "5:6"), (5, 6, vec![6]));
    assert_eq!(ids(&rootfs, "5"), (5, 0, vec![0]));
    let found = resolve(&rootfs, "u").unwrap();
    assert_eq!((found.name.as_str(), found.home.as_str()), ("u", "/home/u"));
}

#[test]
fn an_image_without_files_knows_numbers_only() {
    let (_dir, rootfs) = image(None, None);
    assert_eq!(ids(&rootfs, "12:13"), (12, 13, vec![13]));
    assert_eq!(ids(&rootfs, "12"), (12, 0, vec![0]));
    assert_eq!(ids(&rootfs, ""), (0, 0, vec![0]));
    assert_eq!(kind(&rootfs, "u"), ErrorKind::NotFound);
    assert_eq!(kind(&rootfs, "1:g"), ErrorKind::NotFound);
}

#[test]
fn s15_ids_above_31_bits_never_wrap() {
    let (_dir, rootfs) = fixture();
    for user in
        ["2147483648", "4294967296", "1:4294967296", "4294967296:1", "18446744073709551616", "-1", "1:-1"]
    {
        assert_eq!(kind(&rootfs, user), ErrorKind::InvalidArgument, "{user}");
    }
    // Nor do ids that the image's own files give to a name.
    for user in ["wrap", "badgid", "u:huge"] {
        assert_eq!(kind(&rootfs, user), ErrorKind::InvalidArgument, "{user}");
    }
    assert_eq!(ids(&rootfs, "2147483647").0, 2147483647);
}

#[test]
fn s20_a_number_that_does_not_fit_is_never_looked_up_as_a_name() {
    let (_dir, rootfs) = fixture();
    assert_eq!(kind(&rootfs, "99999999999"), ErrorKind::InvalidArgument);
    assert_eq!(kind(&rootfs, "+99999999999"), ErrorKind::InvalidArgument);
    assert_eq!(kind(&rootfs, "1:99999999999"), ErrorKind::InvalidArgument);
    let (_dir, rootfs) = image(Some("1234:x:0:0::/:\n"), None);
    assert_eq!(ids(&rootfs, "1234"), (1234, 0, vec![0]));
    assert_eq!(
        resolve_groups(&rootfs, &["99999999999".into()]).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[test]
fn malformed_users_are_invalid_arguments() {
    let (_dir, rootfs) = fixture();
    for user in ["a:b:c", "u\nroot", "u\0", &"x".repeat(2000)] {
        assert_eq!(kind(&rootfs, user), ErrorKind::InvalidArgument);
    }
    assert_eq!(kind(&rootfs, "nobody-here"), ErrorKind::NotFound);
}

#[test]
fn s21_a_huge_sparse_file_is_refused_without_being_read() {
    let (dir, rootfs) = fixture();
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("etc/group")).unwrap();
    file.set_len(4 << 30).unwrap();
    assert_eq!(kind(&rootfs, "u"), ErrorKind::InvalidArgument);
}

#[test]
fn s21_an_endless_line_is_refused() {
    let mut line = "u:x:1000:1000::/:\nlong:x:5:".to_owned();
    line.push_str(&"a,".repeat(1 << 20));
    let (_dir, rootfs) = image(Some("u:x:1000:1000::/:\n"), Some(&line));
    assert_eq!(kind(&rootfs, "u"), ErrorKind::InvalidArgument);
}

#[test]
fn s21_a_fifo_is_refused_and_does_not_block() {
    let (dir, rootfs) = image(None, Some(GROUP_TEXT));
    let path = dir.path().join("etc/passwd");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert_eq!(kind(&rootfs, "u"), ErrorKind::InvalidArgument);
}

#[test]
fn s21_a_device_is_refused() {
    let (dir, rootfs) = image(None, Some(GROUP_TEXT));
    let path = dir.path().join("etc/passwd");
    let zero = rustix::fs::makedev(1, 5);
    let mode = rustix::fs::Mode::RUSR;
    if rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::CharacterDevice, mode, zero).is_err()
    {
        eprintln!("skipped: making devices needs root");
        return;
    }
    assert_eq!(kind(&rootfs, "u"), ErrorKind::InvalidArgument);
}

#[test]
fn s21_links_never_lead_out_of_the_image() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("passwd"), "u:x:77:77::/:\n").unwrap();
    let (dir, rootfs) = image(None, None);
    let link = dir.path().join("etc/passwd");
    let target = outside.path().join("passwd");
    for target in [target.to_str().unwrap(), "/proc/kcore", "../../../../../../../../proc/self/environ"] {
        symlink(target, &link).unwrap();
        assert_eq!(kind(&rootfs, "u"), ErrorKind::NotFound, "{target}");
        fs::remove_file(&link).unwrap();
    }
    symlink("passwd", &link).unwrap();
    assert_eq!(kind(&rootfs, "u"), ErrorKind::InvalidArgument);
    fs::remove_file(&link).unwrap();
    // A link inside the image is followed, from the image's root.
    fs::create_dir(dir.path().join("usr")).unwrap();
    fs::write(dir.path().join("usr/passwd"), PASSWD_TEXT).unwrap();
    symlink("/usr/passwd", &link).unwrap();
    assert_eq!(ids(&rootfs, "u").0, 1000);
}

#[test]
fn groups_are_numbers_or_names() {
    let (_dir, rootfs) = fixture();
    assert_eq!(
        resolve_groups(&rootfs, &["g".into(), "17".into(), "extra".into()]).unwrap(),
        [3000, 17, 2000]
    );
    assert_eq!(resolve_groups(&rootfs, &["absent".into()]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(resolve_groups(&rootfs, &["huge".into()]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(resolve_groups(&rootfs, &[String::new()]).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
