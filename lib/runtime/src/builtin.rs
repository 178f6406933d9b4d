//! The built-in runtime: `libcontainer` makes containers; everything else is ours.
//!
//! Creating runs in a short-lived process, this program executed again from a file that nobody can change, since it
//! forks, changes directory and lives beside hostile processes for a moment. An exec is such a process that enters the
//! container and then becomes the program. What is left, signals, freezing, lists, figures, removal, works on the
//! container's cgroups and needs no code of `libcontainer`, so a shim stays small.

mod caller;
mod cgroup;
mod create;
mod exec;
mod executor;
mod helper;
mod normalise;
mod program;
mod record;
mod report;
mod runtime;
mod supported;
mod update;
mod users;

pub use helper::{HELPER_ARGUMENT, run_if_asked};
pub(crate) use runtime::BuiltinRuntime;
pub use supported::supports;
