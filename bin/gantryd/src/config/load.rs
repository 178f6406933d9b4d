//! Reads the configuration file and what it imports.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_core::{Error, Result, wire_names};
use toml::{Table, Value};

use super::Config;
use super::migrate::{migrate, version_of};

/// Keys of the file itself. Source: features C13 and C14.
const KNOWN_KEYS: &[&str] = &[
    "version",
    "root",
    "state",
    "temp",
    "disabled_plugins",
    "required_plugins",
    "oom_score",
    "imports",
    "debug",
    "cgroup",
    "plugins",
    "proxy_plugins",
    "timeouts",
    "stream_processors",
];

/// A configuration file may have at most this many bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads the configuration at `path`; without one the default file, if it is there.
///
/// # Errors
/// `NotFound` for a file that was asked for; `InvalidArgument` with row and column for one that cannot be read.
pub(crate) fn load(path: Option<&Path>) -> Result<Config> {
    let mut reader = Reader::default();
    let mut file = match path {
        Some(path) => reader.file(path)?,
        None => match reader.file(Path::new(wire_names::DEFAULT_CONFIG)) {
            Err(error) if error.kind() == gantry_core::ErrorKind::NotFound => Table::new(),
            other => other?,
        },
    };
    let config = typed(&mut file, reader.warnings)?;
    if !config.root.is_absolute() || !config.state.is_absolute() || config.root == config.state {
        // Source: features C15.
        return Err(Error::invalid_argument(format!(
            "root {:?} and state {:?} must be different absolute paths",
            config.root, config.state
        )));
    }
    Ok(config)
}

#[derive(Default)]
struct Reader {
    seen: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl Reader {
    /// One file and what it imports, in the latest version.
    fn file(&mut self, path: &Path) -> Result<Table> {
        use std::io::Read as _;
        let read =
            |step: &str, error| Error::io(error).context(format!("{step} configuration {}", path.display()));
        let mut text = String::new();
        std::fs::File::open(path)
            .map_err(|error| read("open", error))?
            .take(MAX_FILE_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| read("read", error))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::resource_exhausted(format!(
                "configuration {}: larger than {MAX_FILE_BYTES} bytes",
                path.display()
            )));
        }
        let wrong = |error: toml::de::Error| {
            let (row, column) = position(&text, error.span().map_or(0, |span| span.start));
            // Source: features C18, the original's words.
            Error::invalid_argument(format!(
                "{}: failed to unmarshal TOML at row {row} column {column}: {}",
                path.display(),
                error.message()
            ))
        };
        let mut file: Table = toml::from_str(&text).map_err(wrong)?;
        let version = version_of(&file).map_err(|error| error.context(path.display().to_string()))?;
        migrate(&mut file, version).map_err(|error| error.context(path.display().to_string()))?;
        for key in file.keys().filter(|key| !KNOWN_KEYS.contains(&key.as_str())) {
            let (row, column) = position(&text, find_key(&text, key));
            self.warnings.push(format!(
                "{}: row {row} column {column}: unknown key {key:?} is ignored",
                path.display()
            ));
        }
        self.seen.push(path.to_owned());
        let imports: Vec<String> =
            file.remove("imports").and_then(|imports| imports.try_into().ok()).unwrap_or_default();
        for pattern in imports {
            let pattern = path.parent().unwrap_or(Path::new("/")).join(pattern);
            for import in expand(&pattern)? {
                if !self.seen.contains(&import) {
                    let imported = self.file(&import)?;
                    merge(&mut file, imported);
                }
            }
        }
        Ok(file)
    }
}

/// Where in the text a top-level key stands; 0 if it is not found (it came from a migration).
fn find_key(text: &str, key: &str) -> usize {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let head = line.trim_start().trim_start_matches('[').trim_start_matches(['"', '\'']);
        if head.strip_prefix(key).is_some_and(|rest| rest.starts_with([' ', '=', ']', '.', '"', '\''])) {
            return at;
        }
        at += line.len();
    }
    0
}

/// Row and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let offset = offset.min(text.len());
    let start = (0..=offset).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let before = &text[..start];
    let row = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (row, column)
}

/// The files a pattern names: a plain path, or a `*` in the last part. Source: features C16.
fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((head, tail)) = name.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    let directory = pattern.parent().unwrap_or(Path::new("/"));
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Error::io(error).context(format!("list imports in {}", directory.display())));
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Merges an imported file. Source: features C16: scalars are overwritten, lists appended without duplicates, plugins' sections
/// merged deeply, proxy plugins, timeouts and stream processors replaced key by key.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Array(old)), Value::Array(new)) => {
                for item in new {
                    if !old.contains(&item) {
                        old.push(item);
                    }
                }
            }
            (Some(Value::Table(old)), Value::Table(new)) => match key.as_str() {
                "proxy_plugins" | "timeouts" | "stream_processors" => old.extend(new),
                _ => merge(old, new),
            },
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn typed(file: &mut Table, warnings: Vec<String>) -> Result<Config> {
    fn take<T: serde::de::DeserializeOwned>(file: &mut Table, key: &str, default: T) -> Result<T> {
        match file.remove(key) {
            None => Ok(default),
            Some(value) => value.try_into().map_err(|error: toml::de::Error| {
                Error::invalid_argument(format!("configuration key {key}: {}", error.message()))
            }),
        }
    }
    let mut debug: Table = take(file, "debug", Table::new())?;
    let defaults = Config::default();
    let mut config = Config {
        root: take(file, "root", defaults.root)?,
        state: take(file, "state", defaults.state)?,
        disabled_plugins: take(file, "disabled_plugins", Vec::new())?,
        required_plugins: take(file, "required_plugins", Vec::new())?,
        oom_score: take(file, "oom_score", 0)?,
        log_level: take(&mut debug, "level", "info".to_owned())?,
        log_format: take(&mut debug, "format", "text".to_owned())?,
        timeouts: take(file, "timeouts", BTreeMap::new())?,
        plugins: take(file, "plugins", Table::new())?,
        warnings,
    };
    for key in ["proxy_plugins", "stream_processors", "cgroup", "temp"] {
        if file.get(key).is_some_and(|value| value.as_table().is_none_or(|table| !table.is_empty())) {
            config.warnings.push(format!("configuration key {key} is not built yet and is ignored"));
        }
    }
    if config.log_level.is_empty() {
        config.log_level = "info".to_owned();
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_merged_and_unknown_keys_named() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("config.toml");
        std::fs::create_dir(directory.path().join("conf.d")).unwrap();
        std::fs::write(
            &main,
            "version = 2\nimports = ['conf.d/*.toml']\nroot = '/r'\nstate = '/s'\nrequired_plugins = ['a.b']\nbogus = 1\n",
        )
        .unwrap();
        std::fs::write(
            directory.path().join("conf.d/10.toml"),
            "version = 4\nroot = '/r2'\nrequired_plugins = ['a.b', 'c.d']\n[plugins.'io.containerd.gc.v1.scheduler']\nmutation_threshold = 7\n",
        )
        .unwrap();
        let config = load(Some(&main)).unwrap();
        assert_eq!(config.root, Path::new("/r2"));
        assert_eq!(config.required_plugins, ["a.b", "c.d"]);
        let section: crate::config::CollectionSection =
            config.section("io.containerd.gc.v1.scheduler").unwrap();
        assert_eq!((section.mutation_threshold, section.pause_threshold), (7, 0.02));
        assert_eq!(config.warnings.len(), 1);
        assert!(
            config.warnings[0].contains("row 6 column 1: unknown key \"bogus\""),
            "{:?}",
            config.warnings
        );
    }

    #[test]
    fn a_syntax_error_says_row_and_column() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("config.toml");
        std::fs::write(&main, "version = 2\nroot = = 1\n").unwrap();
        let error = load(Some(&main)).unwrap_err();
        assert!(error.to_string().contains("failed to unmarshal TOML at row 2 column"), "{error}");
    }

    #[test]
    fn an_explicit_file_must_be_there() {
        let error = load(Some(Path::new("/nonexistent/config.toml"))).unwrap_err();
        assert_eq!(error.kind(), gantry_core::ErrorKind::NotFound);
    }
}
