//! System calls: the only crate with unsafe code.
//!
//! What the rest of gantry may not do itself, offered as safe functions over owned descriptors:
//! starting processes and learning of their end. Policy (what to run, when to give up) belongs to
//! the callers. Most of it needs Linux 5.11 or newer.
//!
//! Start at [`process::Spawn`]; a process that inherits orphans also needs [`reaper::Reaper`].

pub mod children;
pub mod descriptor;
pub mod exit;
pub mod process;
pub mod reaper;

pub use exit::{Exit, ExitStatus};
pub use process::{Child, Spawn, Stdio};
