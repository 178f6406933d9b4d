//! Which crate may use which: the table in STYLE.md section 1, enforced.

use crate::metadata::Metadata;
use crate::step::{Result, say};

/// A folder, or all folders below one, and what its crates may use.
struct Layer {
    folder: &'static str,
    may_use: &'static [&'static str],
}

/// The first row whose folder fits decides. `*` is everything.
const TABLE: &[Layer] = &[
    Layer { folder: "bin/", may_use: &["*"] },
    Layer { folder: "plugins/cri", may_use: &["core", "lib/", "api", "client"] },
    Layer { folder: "plugins/", may_use: &["core", "lib/"] },
    Layer { folder: "client", may_use: &["core", "rpc", "lib/"] },
    Layer { folder: "rpc", may_use: &["core", "api"] },
    Layer { folder: "lib/ttrpc", may_use: &["core", "lib/", "api"] },
    Layer { folder: "lib/shim", may_use: &["core", "lib/", "api"] },
    Layer { folder: "lib/", may_use: &["core", "lib/"] },
    Layer { folder: "core", may_use: &[] },
    Layer { folder: "api", may_use: &[] },
    Layer { folder: "testkit", may_use: &["core", "rpc", "client", "lib/"] },
    Layer { folder: "xtask", may_use: &["testkit", "core", "client"] },
    Layer { folder: "tests/e2e", may_use: &["testkit", "core", "client"] },
    // It asks for what the client library never does: the unary list of everything, for one.
    Layer { folder: "tests/load", may_use: &["testkit", "rpc", "api"] },
    // It does what no client does: every noun's calls, and every failpoint.
    Layer { folder: "tests/crash", may_use: &["testkit", "core", "rpc", "client", "lib/"] },
];

fn fits(folder: &str, pattern: &str) -> bool {
    pattern == "*" || folder == pattern || (pattern.ends_with('/') && folder.starts_with(pattern))
}

/// Whether a crate in the folder `from` may use one in the folder `to`; an error for a folder without a layer.
fn allowed(from: &str, to: &str, dev_only: bool) -> Result<bool> {
    let layer = TABLE.iter().find(|layer| fits(from, layer.folder));
    let layer = layer.ok_or_else(|| format!("{from} is in no layer of the table"))?;
    Ok(layer.may_use.iter().any(|pattern| fits(to, pattern)) || (dev_only && to == "testkit"))
}

/// Names every edge that does not fit the table.
pub(crate) fn layers() -> Result<()> {
    say("layers");
    let metadata = Metadata::read()?;
    let mut wrong = Vec::new();
    let mut count = 0;
    for member in metadata.members() {
        let folder = metadata.folder(member).unwrap_or_default();
        if !TABLE.iter().any(|layer| fits(folder, layer.folder)) {
            wrong.push(format!("{} in {folder} is in no layer of the table", member.name));
        }
    }
    for edge in metadata.edges() {
        let (Some(from), Some(to)) = (metadata.folder(edge.from), metadata.folder(edge.to)) else { continue };
        count += 1;
        if !allowed(from, to, edge.dev_only)? {
            let how = if edge.dev_only { "uses in its tests" } else { "uses" };
            wrong.push(format!("{} ({from}) {how} {} ({to})", edge.from.name, edge.to.name));
        }
    }
    if wrong.is_empty() {
        eprintln!("{count} edges between our crates, all as the table says");
        return Ok(());
    }
    Err(format!(
        "{} edges do not fit the table in STYLE.md section 1:\n  {}",
        wrong.len(),
        wrong.join("\n  ")
    ))
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn arrows_point_one_way() {
        for (from, to) in [
            ("bin/gantryd", "plugins/content"),
            ("plugins/cri", "client"),
            ("client", "lib/oci"),
            ("lib/shim", "api"),
        ] {
            assert_eq!(allowed(from, to, false), Ok(true), "{from} {to}");
        }
        for (from, to) in [
            ("plugins/content", "plugins/diff"),
            ("core", "lib/oci"),
            ("lib/oci", "api"),
            ("client", "plugins/content"),
            ("rpc", "lib/ttrpc"),
        ] {
            assert_eq!(allowed(from, to, false), Ok(false), "{from} {to}");
        }
    }

    #[test]
    fn testkit_is_for_tests_only() {
        assert_eq!(allowed("plugins/content", "testkit", true), Ok(true));
        assert_eq!(allowed("plugins/content", "testkit", false), Ok(false));
        assert_eq!(allowed("tests/e2e", "testkit", false), Ok(true));
    }

    #[test]
    fn a_folder_outside_the_table_is_an_error() {
        assert!(allowed("extras/thing", "core", false).is_err());
    }
}
