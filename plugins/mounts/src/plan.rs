//! What of a list is performed here, and how: decided before anything is done.
//!
//! Source: containerd's mount manager: everything up to the last entry that needs a handler is performed, and everything before
//! the last entry that needs a transformation; that entry itself is answered transformed.

use gantry_core::mount::Mount;
use gantry_core::mounts::ActivateMounts;
use gantry_core::{Error, Result};

/// The most entries of a list. Source: containerd's limit, one byte's.
pub(crate) const MAX_MOUNTS: usize = 255;
/// The most transformations of one entry; each is needed once.
const MAX_STEPS: usize = 16;

/// A change to an entry before it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Format,
    Mkfs,
    Mkdir,
}

impl Step {
    fn parse(name: &str) -> Option<Step> {
        Some(match name {
            "format" => Step::Format,
            "mkfs" => Step::Mkfs,
            "mkdir" => Step::Mkdir,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Step::Format => "format",
            Step::Mkfs => "mkfs",
            Step::Mkdir => "mkdir",
        }
    }
}

/// One entry, and what is done to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// Its type is what is left behind the names of the steps.
    pub(crate) entry: Mount,
    pub(crate) steps: Vec<Step>,
    /// The entry as it was given, for a caller that does the steps itself.
    given: Mount,
}

/// A list, split.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// What is performed here, in order.
    pub(crate) performed: Vec<Planned>,
    /// What is left; the first of it is transformed.
    pub(crate) first_left: Option<Planned>,
    /// What is left as it was given.
    pub(crate) left: Vec<Mount>,
    /// Whether a bind mount of the last that was performed is added.
    pub(crate) add_bind: bool,
}

fn check(entry: &Mount) -> Result<()> {
    let mut texts = [&entry.kind, &entry.source, &entry.target].into_iter().chain(&entry.options);
    match texts.find(|text| text.contains('\0')) {
        Some(text) => Err(Error::invalid_argument(format!("zero byte in {text:?} of a mount"))),
        None => Ok(()),
    }
}

/// The steps that the type's prefixes name. Whatever else stands before a slash stays part of the type.
fn split(given: &Mount) -> Result<Planned> {
    let mut steps = Vec::new();
    let mut kind = given.kind.as_str();
    while let Some((prefix, rest)) = kind.split_once('/') {
        let Some(step) = Step::parse(prefix) else {
            tracing::warn!(prefix, kind = given.kind, "unknown transformation of a mount");
            break;
        };
        if steps.len() == MAX_STEPS {
            let text = format!("mount type {:.100?}: more than {MAX_STEPS} transformations", given.kind);
            return Err(Error::invalid_argument(text));
        }
        steps.push(step);
        kind = rest;
    }
    let entry = Mount { kind: kind.to_owned(), ..given.clone() };
    Ok(Planned { entry, steps, given: given.clone() })
}

impl Plan {
    /// Splits `mounts`; `handled` tells for which types there is a handler.
    ///
    /// # Errors
    /// `Unimplemented` if nothing is to be done; `InvalidArgument` for lists beyond all bounds.
    pub(crate) fn of(mounts: &[Mount], how: &ActivateMounts, handled: impl Fn(&str) -> bool) -> Result<Plan> {
        if mounts.len() > MAX_MOUNTS {
            let text = format!("too many mounts ({}): maximum {MAX_MOUNTS}", mounts.len());
            return Err(Error::invalid_argument(text));
        }
        let allowed = |kind: &str| how.allowed_types.iter().any(|allowed| allowed == kind);
        let mut all = Vec::with_capacity(mounts.len());
        let mut first = None;
        for (index, given) in mounts.iter().enumerate() {
            check(given)?;
            let planned = split(given)?;
            let steps = planned.steps.iter();
            if steps.clone().any(|step| !allowed(&given.kind) && !allowed(&format!("{}/*", step.name()))) {
                first = Some(index);
            }
            let kind = planned.entry.kind.as_str();
            if how.temporary || (handled(kind) && !allowed(kind)) {
                first = Some(index + 1);
            }
            all.push(planned);
        }
        let Some(first) = first else {
            return Err(Error::unimplemented("no mount of the list needs the mount manager"));
        };
        let mut rest = all.split_off(first).into_iter();
        let first_left = rest.next();
        let left = rest.map(|planned| planned.given).collect();
        let add_bind = how.temporary && !all.is_empty();
        Ok(Plan { performed: all, first_left, left, add_bind })
    }
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;

    use super::*;

    fn list(kinds: &[&str]) -> Vec<Mount> {
        kinds.iter().map(|kind| Mount { kind: (*kind).to_owned(), ..Mount::default() }).collect()
    }

    /// How many are performed, then the types of what is left.
    fn planned(kinds: &[&str], how: &ActivateMounts) -> Result<(usize, Vec<String>)> {
        let plan = Plan::of(&list(kinds), how, |kind| kind == "loop" || kind == "erofs")?;
        let first = plan.first_left.into_iter().map(|planned| planned.entry);
        Ok((plan.performed.len(), first.chain(plan.left).map(|entry| entry.kind).collect()))
    }

    #[test]
    fn a_list_is_split_behind_the_last_that_needs_a_manager() {
        let how = ActivateMounts::default();
        for (kinds, performed, left) in [
            (&["loop", "format/ext4"][..], 1, &["ext4"][..]),
            (&["format/overlay"], 0, &["overlay"]),
            (&["bind", "format/mkdir/overlay", "bind"], 1, &["overlay", "bind"]),
            (&["mkfs/loop"], 1, &[]),
            (&["erofs", "erofs", "overlay"], 2, &["overlay"]),
            (&["other/ext4", "format/x/ext4"], 1, &["x/ext4"]),
        ] {
            let left = left.iter().map(|kind| (*kind).to_owned()).collect();
            assert_eq!(planned(kinds, &how).unwrap(), (performed, left), "{kinds:?}");
        }
        for kinds in [&["bind"][..], &[], &["overlay", "ext4"], &["other/ext4"], &["format"]] {
            let refused = planned(kinds, &how).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unimplemented, "{kinds:?}");
        }
    }

    #[test]
    fn a_temporary_list_is_performed_whole() {
        let how = ActivateMounts { temporary: true, ..Default::default() };
        assert_eq!(planned(&["bind", "format/overlay"], &how).unwrap(), (2, Vec::new()));
        assert_eq!(planned(&[], &how).unwrap_err().kind(), ErrorKind::Unimplemented);
    }

    #[test]
    fn what_the_caller_does_itself_is_left_to_it() {
        let allow = |types: &[&str]| ActivateMounts {
            allowed_types: types.iter().map(|kind| (*kind).to_owned()).collect(),
            ..Default::default()
        };
        let kinds = ["loop", "format/ext4"];
        let left = |how| planned(&kinds, &how).map_err(|error| error.kind());
        assert_eq!(left(allow(&["loop", "format/*"])), Err(ErrorKind::Unimplemented));
        assert_eq!(left(allow(&["loop", "format/ext4"])), Err(ErrorKind::Unimplemented));
        assert_eq!(left(allow(&["loop"])).unwrap().0, 1, "needed by the entry behind it");
    }

    #[test]
    fn lists_beyond_all_bounds_are_refused() {
        let how = ActivateMounts { temporary: true, ..Default::default() };
        for bad in [list(&["bind"; 256]), list(&[&"format/".repeat(17)]), list(&["a\0b"])] {
            let refused = Plan::of(&bad, &how, |_| false).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        }
    }
}
