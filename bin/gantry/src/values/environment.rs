//! Files with environments.

use std::path::Path;

use gantry_core::{Error, Result, ResultExt as _};

/// An environment's file is read whole.
const MAX_ENV_FILE_BYTES: u64 = 1 << 20;

/// Reads a file of `KEY=value` lines; empty ones and those that begin with `#` do not count.
///
/// # Errors
/// Those of reading it; `InvalidArgument` naming the line that is none.
pub(crate) fn read(path: &Path) -> Result<Vec<String>> {
    let step = || format!("environment file {}", path.display());
    if std::fs::metadata(path).with_context(step)?.len() > MAX_ENV_FILE_BYTES {
        let why = format!("longer than {MAX_ENV_FILE_BYTES} bytes");
        return Err(Error::invalid_argument(why).context(step()));
    }
    let bytes = std::fs::read(path).with_context(step)?;
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
