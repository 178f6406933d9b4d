//! System calls: the only crate with unsafe code.
//!
//! What the rest of gantry may not do itself, offered as safe functions over owned descriptors:
//! starting processes and learning of their end, namespaces, terminals, FIFOs, sockets, protected
//! executables. Policy (what to run, when to give up) belongs to the callers. Needs Linux 5.12.
//!
//! Start at [`process::Spawn`]; a process that inherits orphans also needs [`reaper::Reaper`].

pub mod attributes;
pub mod boot;
pub mod cgroup;
pub mod children;
pub mod descriptor;
pub mod executable;
pub mod exit;
pub mod fifo;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod pidfd;
pub mod process;
pub mod pty;
pub mod reaper;
pub mod socket;
pub mod user_namespace;
pub mod verity;

pub use exit::{Exit, ExitStatus};
pub use process::{Child, Spawn, Stdio};
