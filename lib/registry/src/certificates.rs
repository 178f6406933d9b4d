//! Docker's layout of certificates: `*.crt` to trust, `*.cert` with `*.key` to show.

use std::path::Path;

use gantry_core::{Error, Result};

use crate::hosts::{Configured, PartialHost};

const MAX_FILES: usize = 4096;

/// The registry itself, with the certificates in `directory`.
///
/// # Errors
/// Those of reading the directory.
pub(crate) fn load(directory: &Path) -> Result<Configured> {
    let failed = |error: std::io::Error| Error::io(error).context(format!("read {}", directory.display()));
    let mut host = PartialHost::default();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)?.take(MAX_FILES) {
        let entry = entry.map_err(failed)?;
        if !entry.path().is_dir() {
            names.push(entry.path());
        }
    }
    names.sort();
    for path in names {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => host.tls.ca.push(path),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = key.is_file().then_some(key);
                host.tls.client.push((path, key));
            }
            _ => {}
        }
    }
    Ok(Configured { hosts: vec![host], warnings: Vec::new() })
}
