//! How large the log file of a container may become before it is rotated.
//!
//! Whoever wants it labels the container; the daemon passes the limits on in the query of the `file://` URL that the
//! task's output goes to, under the same names. A shim that does not know them looks only at the path of the URL.

use crate::wire_names::{LABEL_LOG_MAX_FILES, LABEL_LOG_MAX_SIZE};
use crate::{Error, Labels, Result, ResultExt};

/// Below this, rotating would be most of the work.
const MIN_SIZE_BYTES: u64 = 4096;
/// The most that may be kept: each rotation renames every file once.
pub const MAX_FILES: u32 = 100;

/// Limits of a log file and of what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// The size that no file grows beyond, in bytes. At least 4096.
    pub max_size_bytes: u64,
    /// How many files there may be, the one being written included. From 1 to 100; with 1, a full file is emptied.
    pub max_files: u32,
}

impl Default for LogLimits {
    /// Source: kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
    fn default() -> Self {
        LogLimits { max_size_bytes: 10 << 20, max_files: 5 }
    }
}

impl LogLimits {
    /// The limits that `value` gives for the names of the two labels; `None` if it knows neither. One that is missing
    /// is the default.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no number, or none that can be.
    pub fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<Option<LogLimits>> {
        let number = |name: &str, default: u64, range: std::ops::RangeInclusive<u64>| match value(name) {
            None => Ok(default),
            Some(text) => {
                let number = text.parse().ok().filter(|number| range.contains(number));
                number.ok_or_else(|| Error::invalid_argument(format!("not from {range:?}: {text:?}")))
            }
            .with_context(|| format!("label {name:?}")),
        };
        if value(LABEL_LOG_MAX_SIZE).or(value(LABEL_LOG_MAX_FILES)).is_none() {
            return Ok(None);
        }
        let default = LogLimits::default();
        let max_size_bytes = number(LABEL_LOG_MAX_SIZE, default.max_size_bytes, MIN_SIZE_BYTES..=u64::MAX)?;
        let max_files = number(LABEL_LOG_MAX_FILES, default.max_files.into(), 1..=MAX_FILES.into())?;
        Ok(Some(LogLimits { max_size_bytes, max_files: u32::try_from(max_files).unwrap_or(MAX_FILES) }))
    }

    /// The limits among the labels of a container.
    ///
    /// # Errors
    /// As for [`LogLimits::read`].
    pub fn from_labels(labels: &Labels) -> Result<Option<LogLimits>> {
        LogLimits::read(|name| labels.get(name).map(String::as_str))
    }

    /// Adds them to a `file://` URL, unless it has limits already; any other output is given back as it is.
    pub fn add_to_url(self, url: &str) -> String {
        if !url.starts_with("file://")
            || url.contains(LABEL_LOG_MAX_SIZE)
            || url.contains(LABEL_LOG_MAX_FILES)
        {
            return url.to_owned();
        }
        let (url, fragment) = url.split_once('#').map_or((url, None), |(url, rest)| (url, Some(rest)));
        let sign = if url.contains('?') { '&' } else { '?' };
        let LogLimits { max_size_bytes, max_files } = self;
        let mut url =
            format!("{url}{sign}{LABEL_LOG_MAX_SIZE}={max_size_bytes}&{LABEL_LOG_MAX_FILES}={max_files}");
        if let Some(fragment) = fragment {
            url.push('#');
            url.push_str(fragment);
        }
        url
    }
}

/// The name of a log file that was rotated `age` times; of the one being written with 0.
pub fn rotated(path: &std::path::Path, age: u32) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    if age > 0 {
        name.push(format!(".{age}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn either_label_asks_for_rotation_and_bad_ones_are_named() {
        let read = |pairs: &[(&str, &str)]| LogLimits::from_labels(&labels(pairs));
        assert_eq!(read(&[("other", "1")]).unwrap(), None);
        let default = LogLimits::default();
        let size = LogLimits { max_size_bytes: 8192, ..default };
        assert_eq!(read(&[(LABEL_LOG_MAX_SIZE, "8192")]).unwrap(), Some(size));
        assert_eq!(read(&[(LABEL_LOG_MAX_FILES, "2")]).unwrap(), Some(LogLimits { max_files: 2, ..default }));
        for (name, value) in [
            (LABEL_LOG_MAX_SIZE, "10m"),
            (LABEL_LOG_MAX_SIZE, "1"),
            (LABEL_LOG_MAX_SIZE, "-8192"),
            (LABEL_LOG_MAX_FILES, "0"),
            (LABEL_LOG_MAX_FILES, "101"),
            (LABEL_LOG_MAX_FILES, ""),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn only_files_get_limits_and_their_own_win() {
        let limits = LogLimits { max_size_bytes: 8192, max_files: 3 };
        let query = "gantry.io/log-max-size=8192&gantry.io/log-max-files=3";
        assert_eq!(limits.add_to_url("file:///a.log"), format!("file:///a.log?{query}"));
        assert_eq!(limits.add_to_url("file:///a.log?b=c#d"), format!("file:///a.log?b=c&{query}#d"));
        let own = format!("file:///a.log?{LABEL_LOG_MAX_FILES}=1");
        for other in ["/run/fifo", "binary:///logger", "", &own] {
            assert_eq!(limits.add_to_url(other), other);
        }
    }
}
