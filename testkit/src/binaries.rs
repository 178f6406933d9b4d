//! Where the programs under test and their peers are.

use std::path::{Path, PathBuf};

/// The directory of the workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    if let Some(given) = std::env::var_os("GANTRY_WORKSPACE") {
        return PathBuf::from(given);
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("testkit lies in the workspace").to_path_buf()
}

/// The directory with our built programs: `GANTRY_BIN_DIR`, or the target directory of this very test.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(given) = std::env::var_os("GANTRY_BIN_DIR") {
        return PathBuf::from(given);
    }
    let exe = std::env::current_exe().expect("a running program has a path");
    let dir = exe.parent().expect("an executable lies in a directory");
    // Tests lie in target/<profile>/deps, programs one level up.
    if dir.ends_with("deps") {
        dir.parent().expect("deps lies in the profile's directory").to_path_buf()
    } else {
        dir.to_path_buf()
    }
}

/// The first executable called `name` on the search path, system directories included.
#[must_use]
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(
            ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin", "/usr/local/go/bin"]
                .map(PathBuf::from),
        )
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
