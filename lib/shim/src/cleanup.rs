//! `delete`: clean up after a container whose shim is gone.
//!
//! Everything here goes on after an error and may run twice; the first error is what is reported.

use std::path::Path;
use std::time::SystemTime;

use gantry_api::containerd::runc::v1::Options;
use gantry_api::containerd::task::v3::DeleteResponse;
use gantry_core::{ErrorKind, Result, ResultExt};
use gantry_mount::Busy;

use crate::bundle::{self, Notes};
use crate::command_line::Arguments;
use crate::convert;
use crate::runtime;

/// 128 and SIGKILL. Source: features I06.
const KILLED: u32 = 137;

/// Kills what is left of the container, removes it and its mounts, and gives the answer to print.
///
/// # Errors
/// What could not be undone.
pub async fn delete(arguments: &Arguments) -> Result<DeleteResponse> {
    let bundle = crate::start::bundle_dir(arguments)?;
    let notes = Notes::read(&bundle);
    let removed = remove(arguments, &bundle, &notes).await;
    let unmounted = gantry_mount::unmount_recursive(&bundle::rootfs(&bundle), Busy::Detach)
        .context("unmount the root file system");
    remove_socket(&bundle);
    removed?;
    unmounted?;
    Ok(convert::delete_to_proto(notes.pid, KILLED, Some(SystemTime::now())))
}

async fn remove(arguments: &Arguments, bundle: &Path, notes: &Notes) -> Result<()> {
    let options = Options {
        binary_name: notes.binary_name.clone(),
        root: notes.root.clone(),
        systemd_cgroup: notes.systemd_cgroup,
        ..Options::default()
    };
    let runtime = runtime::for_existing(&options, &arguments.namespace, bundle)?;
    match runtime.delete(&arguments.id, true).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        deleted => deleted,
    }
}

/// Removes the socket that the shim left, unless somebody listens: a shim may serve other containers too.
fn remove_socket(bundle: &Path) {
    let Ok(address) = std::fs::read_to_string(bundle.join("address")) else { return };
    let path = gantry_ttrpc::socket::path_of(address.trim());
    if gantry_sys::socket::connect(path).is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
        // The next start would replace it anyway.
        let _ = std::fs::remove_file(path);
    }
}
