//! Users and groups of an image: what `USER name:group` means in its root file system.

use std::collections::BTreeMap;

use gantry_core::{Error, Result};

use crate::rootfs::Rootfs;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";

/// The largest user or group id that is taken.
///
/// Source: the original refuses what runc refuses, everything above 2^31-1 (S15).
pub const MAX_ID: u32 = i32::MAX as u32;

/// Groups of one process. Source: Linux `NGROUPS_MAX`.
const MAX_GROUPS: usize = 65536;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Its user id.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All its groups: the primary one first, then those that list it as a member, in the order of the file (S13).
    pub additional_gids: Vec<u32>,
    /// Its name; empty if the image does not know it.
    pub name: String,
    /// Its home directory, as the image names it; may be empty.
    pub home: String,
}

/// One half of a user specification.
enum Half<'a> {
    Absent,
    Id(u32),
    Name(&'a str),
}

impl<'a> Half<'a> {
    /// A number is a number: it is never looked up as a name, whatever its size (S20).
    fn parse(text: &'a str, whole: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Half::Absent);
        }
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Half::Name(text));
        }
        match text.parse::<i64>() {
            Ok(id) if (0..=i64::from(MAX_ID)).contains(&id) => {
                Ok(Half::Id(u32::try_from(id).expect("the range was checked")))
            }
            _ => Err(Error::invalid_argument(format!("invalid USER value {whole:?}: id out of range"))),
        }
    }
}

/// One line of `/etc/passwd`; ids are read only for the user that is wanted.
struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// Finds out who `user` is in `rootfs`. The forms are those of an image's `USER`: nothing, `name`, `uid`, each with
/// `:group` or `:gid` behind it. Nothing means root; a user id that the image does not know has group 0.
///
/// # Errors
/// `InvalidArgument` if the text has another form or an id does not fit, or if the image's files cannot be trusted
/// (see [`crate::rootfs`]); `NotFound` for a name that the image does not know.
pub fn resolve(rootfs: &Rootfs, user: &str) -> Result<User> {
    if user.len() > 1024 {
        return Err(Error::invalid_argument("invalid USER value: longer than 1024 bytes"));
    }
    let (user_half, group_half) = user.split_once(':').unwrap_or((user, ""));
    if group_half.contains(':') || user.contains(['\n', '\0']) {
        return Err(Error::invalid_argument(format!("invalid USER value {user:?}")));
    }
    let group_half = Half::parse(group_half, user)?;
    let mut found = match Half::parse(user_half, user)? {
        // Whoever the image calls 0, nobody means root and root's groups.
        Half::Absent => User { name: "root".to_owned(), ..User::default() },
        Half::Id(uid) => match find_user(rootfs, |_, text| parse_id(text) == Some(uid))? {
            Some(entry) => known(entry),
            None => User { uid, ..User::default() },
        },
        Half::Name(name) => find_user(rootfs, |entry, _| entry == name.as_bytes())?
            .map(known)
            .ok_or_else(|| Error::not_found(format!("user {name:?} in /etc/passwd of the image")))?,
    };
    if let Half::Id(gid) = group_half {
        found.gid = gid;
    }
    let wanted = if let Half::Name(name) = group_half { Some(name) } else { None };
    let (named, memberships) = scan_groups(rootfs, wanted, &found.name)?;
    if let Some(name) = wanted {
        found.gid =
            named.ok_or_else(|| Error::not_found(format!("group {name:?} in /etc/group of the image")))?;
    }
    found.additional_gids = with_primary(found.gid, memberships);
    Ok(found)
}

/// Who `user` is if that takes no looking up, which also means that no memberships are known; `None` if it does.
///
/// # Errors
/// `InvalidArgument` if the text has another form or an id does not fit.
pub fn resolve_numbers(user: &str) -> Result<Option<User>> {
    let (user_half, group_half) = user.split_once(':').unwrap_or((user, ""));
    let (Half::Id(uid), group) = (Half::parse(user_half, user)?, Half::parse(group_half, user)?) else {
        return Ok(None);
    };
    let gid = match group {
        Half::Id(gid) => gid,
        Half::Absent => 0,
        Half::Name(_) => return Ok(None),
    };
    Ok(Some(User { uid, gid, additional_gids: vec![gid], ..User::default() }))
}

/// Who `user` is, looked up in `rootfs` if there is one.
///
/// # Errors
/// As [`resolve`]; `FailedPrecondition` if there is no `rootfs` and looking up is needed.
pub fn find(user: &str, rootfs: Option<&Rootfs>) -> Result<User> {
    match rootfs {
        Some(rootfs) => resolve(rootfs, user),
        None => resolve_numbers(user)?.ok_or_else(|| {
            Error::failed_precondition(format!(
                "user {user:?} cannot be looked up without a root file system"
            ))
        }),
    }
}

/// The group ids of `groups`, each a number or a name.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_groups(rootfs: &Rootfs, groups: &[String]) -> Result<Vec<u32>> {
    let mut names: BTreeMap<&str, Option<u32>> = BTreeMap::new();
    for group in groups {
        if let Half::Name(name) = Half::parse(group, group)? {
            names.insert(name, None);
        }
    }
    if !names.is_empty() {
        rootfs.each_line(GROUP, |line| {
            let mut fields = entry(line);
            let name = std::str::from_utf8(fields.next().unwrap_or_default()).unwrap_or_default();
            if let Some(id @ None) = names.get_mut(name) {
                *id = Some(checked_id(fields.nth(1).unwrap_or_default(), GROUP, name)?);
            }
            Ok(names.values().any(Option::is_none))
        })?;
    }
    groups
        .iter()
        .map(|group| match Half::parse(group, group)? {
            Half::Id(id) => Ok(id),
            Half::Name(name) => names[name]
                .ok_or_else(|| Error::not_found(format!("group {name:?} in /etc/group of the image"))),
            Half::Absent => Err(Error::invalid_argument("empty group name")),
        })
        .collect()
}

fn known(entry: PasswdEntry) -> User {
    User { uid: entry.uid, gid: entry.gid, additional_gids: Vec::new(), name: entry.name, home: entry.home }
}

/// The primary group first, each group once.
fn with_primary(gid: u32, memberships: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::HashSet::from([gid]);
    let mut all = vec![gid];
    all.extend(memberships.into_iter().filter(|id| seen.insert(*id)));
    all
}

/// The fields of a line; none for comments and empty lines.
fn entry(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.trim_ascii();
    let line = if line.starts_with(b"#") { b"" } else { line };
    line.split(|byte| *byte == b':')
}

/// An id as these files write it.
fn parse_id(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id <= MAX_ID)
}

/// An id that is going to be used: one that does not fit must not become another (S15).
fn checked_id(text: &[u8], path: &str, name: &str) -> Result<u32> {
    parse_id(text).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(text).chars().take(40).collect();
        Error::invalid_argument(format!(
            "{path} of the image: {name:?} has the id {shown:?}, which does not fit"
        ))
    })
}

/// The first user of whom `wanted(name, uid text)` holds.
fn find_user(rootfs: &Rootfs, wanted: impl Fn(&[u8], &[u8]) -> bool) -> Result<Option<PasswdEntry>> {
    let mut found = None;
    rootfs.each_line(PASSWD, |line| {
        // Source: passwd(5): name:password:uid:gid:comment:home:shell.
        let mut fields = entry(line);
        let name = fields.next().unwrap_or_default();
        let (uid, gid) = (fields.nth(1).unwrap_or_default(), fields.next().unwrap_or_default());
        if name.is_empty() || !wanted(name, uid) {
            return Ok(true);
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let home = fields.nth(1).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
        let (uid, gid) = (checked_id(uid, PASSWD, &name)?, checked_id(gid, PASSWD, &name)?);
        found = Some(PasswdEntry { name, uid, gid, home });
        Ok(false)
    })?;
    Ok(found)
}

/// The id of the first group called `wanted`, and the ids of all groups with the member `member`.
fn scan_groups(rootfs: &Rootfs, wanted: Option<&str>, member: &str) -> Result<(Option<u32>, Vec<u32>)> {
    let mut named = None;
    let mut memberships = Vec::new();
    rootfs.each_line(GROUP, |line| {
        // Source: group(5): name:password:gid:members.
        let mut fields = entry(line);
        let name = fields.next().unwrap_or_default();
        if name.is_empty() {
            return Ok(true);
        }
        let (id, members) = (fields.nth(1).unwrap_or_default(), fields.next().unwrap_or_default());
        let shown = || String::from_utf8_lossy(name).into_owned();
        if named.is_none() && wanted.is_some_and(|wanted| wanted.as_bytes() == name) {
            named = Some(checked_id(id, GROUP, &shown())?);
        }
        if !member.is_empty()
            && members.split(|byte| *byte == b',').any(|one| one.trim_ascii() == member.as_bytes())
        {
            if memberships.len() >= MAX_GROUPS {
                return Err(Error::invalid_argument(format!(
                    "{GROUP} of the image: {member:?} is in too many groups"
                )));
            }
            memberships.push(checked_id(id, GROUP, &shown())?);
        }
        Ok(true)
    })?;
    Ok((named, memberships))
}

#[cfg(test)]
mod tests;
