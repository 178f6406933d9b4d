//! The process of an exec: another one in a container that runs.

use std::path::PathBuf;

use gantry_core::{Error, Result};

use super::environment;
use crate::rootfs::Rootfs;
use crate::runtime::{Process, Spec};
use crate::user;

/// What an added process differs in from the container's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments, required.
    pub args: Vec<String>,
    /// `KEY=value` to add or replace, `KEY` to remove.
    pub env: Vec<String>,
    /// Where it starts; the container's directory if absent.
    pub cwd: Option<String>,
    /// Who runs it; the container's user if absent. See [`crate::user`].
    pub user: Option<String>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The terminal's width and height.
    pub console_size: Option<(u64, u64)>,
    /// Whether it may do all that the calling process may.
    pub privileged: bool,
}

/// The process to add to the container of `spec`.
///
/// Source: `ctr tasks exec`: everything that is not named stays as in the container's own process.
///
/// # Errors
/// `InvalidArgument` without arguments or for impossible text; `FailedPrecondition` if the spec has no process, or a
/// name is to be looked up and there is no `rootfs`; those of [`user::resolve`].
pub fn exec_process(spec: &Spec, options: &ExecOptions, rootfs: Option<&Rootfs>) -> Result<Process> {
    let mut process = spec
        .process()
        .clone()
        .ok_or_else(|| Error::failed_precondition("the container's spec has no process"))?;
    if options.args.is_empty() || options.args.iter().any(|arg| arg.contains('\0')) {
        return Err(Error::invalid_argument("an exec needs arguments without NUL bytes"));
    }
    process.set_args(Some(options.args.clone()));
    // Of a Windows container; not to be mixed with arguments.
    process.set_command_line(None);
    let mut env = environment::merge(process.env().as_deref().unwrap_or_default(), &options.env)?;
    if options.terminal && !environment::has(&env, "TERM") {
        env.push("TERM=xterm".to_owned());
    }
    process.set_env(Some(env));
    process.set_terminal(options.terminal.then_some(true));
    process.set_console_size(match options.console_size {
        Some((width, height)) if options.terminal => Some(
            serde_json::from_value(serde_json::json!({ "width": width, "height": height }))
                .map_err(|error| Error::internal(format!("console size: {error}")))?,
        ),
        _ => None,
    });
    if let Some(cwd) = &options.cwd {
        if !cwd.starts_with('/') || cwd.contains('\0') {
            return Err(Error::invalid_argument(format!(
                "working directory {cwd:?} is not an absolute path"
            )));
        }
        process.set_cwd(PathBuf::from(cwd));
    }
    if let Some(who) = &options.user {
        let found = user::find(who, rootfs)?;
        let user = process.user_mut();
        user.set_uid(found.uid);
        user.set_gid(found.gid);
        user.set_additional_gids(Some(found.additional_gids));
    }
    if options.privileged {
        process.set_capabilities(Some(super::capabilities::sets(super::capabilities::current()?)));
    }
    // Absent rather than false: some runtimes load the seccomp filter at another moment for false.
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use gantry_core::ErrorKind;
    use serde_json::json;

    use super::*;
    use crate::SpecOptions;

    #[test]
    fn an_exec_differs_only_in_what_is_named() {
        let spec = SpecOptions { env: vec!["A=1".into()], args: vec!["init".into()], ..Default::default() }
            .build("ns", "id", None)
            .unwrap();
        let options = ExecOptions {
            args: vec!["sh".into()],
            env: vec!["B=2".into()],
            terminal: true,
            user: Some("7:8".into()),
            ..Default::default()
        };
        let made = serde_json::to_value(exec_process(&spec, &options, None).unwrap()).unwrap();
        assert_eq!(made["args"], json!(["sh"]));
        assert_eq!(made["user"], json!({ "uid": 7, "gid": 8, "additionalGids": [8] }));
        assert_eq!(made["terminal"], true);
        assert_eq!(made["cwd"], "/");
        let env: Vec<_> = made["env"].as_array().unwrap().iter().filter_map(|text| text.as_str()).collect();
        assert_eq!(&env[1..], ["A=1", "B=2", "TERM=xterm"]);
        // S09: also after exec.
        assert_eq!(made["capabilities"].get("inheritable"), None);
        assert_eq!(made["noNewPrivileges"], true);
    }

    #[test]
    fn impossible_execs_are_refused() {
        let spec = SpecOptions::default().build("ns", "id", None).unwrap();
        let args = vec!["sh".to_owned()];
        for (options, kind) in [
            (ExecOptions::default(), ErrorKind::InvalidArgument),
            (ExecOptions { args: vec!["a\0".into()], ..Default::default() }, ErrorKind::InvalidArgument),
            (
                ExecOptions { args: args.clone(), cwd: Some("x".into()), ..Default::default() },
                ErrorKind::InvalidArgument,
            ),
            (
                ExecOptions { args: args.clone(), user: Some("u".into()), ..Default::default() },
                ErrorKind::FailedPrecondition,
            ),
            (
                ExecOptions { args, user: Some("4294967296".into()), ..Default::default() },
                ErrorKind::InvalidArgument,
            ),
        ] {
            assert_eq!(exec_process(&spec, &options, None).unwrap_err().kind(), kind, "{options:?}");
        }
    }
}
