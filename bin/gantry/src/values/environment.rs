//! Environments, from flags and from files.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;

use gantry_core::{Error, Result, ResultExt as _};

/// An environment's file is read whole.
const MAX_ENV_FILE_BYTES: u64 = 1 << 20;

/// The environment of a process.
#[derive(Args)]
pub(crate) struct EnvFlags {
    /// KEY=VALUE to set, KEY to unset
    #[arg(long, short = 'e', value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvFlags {
    /// What the files say, then what the flags say, which wins.
    ///
    /// # Errors
    /// Those of a file that cannot be read or is none.
    pub(crate) fn read(&self) -> Result<Vec<String>> {
        let mut env = Vec::new();
        for file in &self.env_file {
            env.extend(read(file)?);
        }
        env.extend(self.env.iter().cloned());
        Ok(env)
    }
}

/// Reads a file of `KEY=value` lines; empty ones and those that begin with `#` do not count.
///
/// # Errors
/// Those of reading it; `InvalidArgument` naming the line that is none.
fn read(path: &Path) -> Result<Vec<String>> {
    let step = || format!("environment file {}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(step)?;
    file.take(MAX_ENV_FILE_BYTES + 1).read_to_end(&mut bytes).with_context(step)?;
    if bytes.len() as u64 > MAX_ENV_FILE_BYTES {
        let why = format!("longer than {MAX_ENV_FILE_BYTES} bytes");
        return Err(Error::invalid_argument(why).context(step()));
    }
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid_argument("no UTF-8").context(step()))?;
    env_lines(&text).with_context(step)
}

fn env_lines(text: &str) -> Result<Vec<String>> {
    let mut read = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((key, _)) if !key.is_empty() && !key.contains(char::is_whitespace) => {
                read.push(line.to_owned())
            }
            // The line may hold a secret.
            _ => return Err(Error::invalid_argument(format!("line {} is not KEY=value", number + 1))),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_files_have_comments_and_values_as_they_are() {
        let text = "# colours\nA=1\n\n  B=two words # kept\r\nC=\"quoted\"\nD=\nE=x=y\n";
        let found = env_lines(text).unwrap();
        assert_eq!(found, ["A=1", "B=two words # kept", "C=\"quoted\"", "D=", "E=x=y"]);
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number() {
        for text in ["A=1\nnonsense", "A=1\n=x", "A=1\nexport B=1"] {
            assert!(env_lines(text).unwrap_err().to_string().contains("line 2"), "{text}");
        }
    }

    #[test]
    fn an_environment_file_that_is_missing_is_named() {
        let error = read(Path::new("/imaginary/env")).unwrap_err().to_string();
        assert!(error.contains("environment file /imaginary/env"), "{error}");
    }
}
