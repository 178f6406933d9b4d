//! Durations as Go programs write them, since `hosts.toml` comes from one.

use std::time::Duration;

use gantry_core::{Error, Result};

/// Reads `1.5s`, `2m30s`, `300ms`.
///
/// # Errors
/// `InvalidArgument` naming the text.
pub(crate) fn parse(text: &str) -> Result<Duration> {
    let wrong = || Error::invalid_argument(format!("duration {text:?}"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() || text.len() > 64 {
        return Err(wrong());
    }
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(wrong()),
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, milliseconds) in
            [("300ms", 300), ("1.5s", 1500), ("2m30s", 150_000), ("1h", 3_600_000), ("0", 0)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "1x", "-1s", "1..2s", "99999999999999999999999h", "1sé"] {
            parse(text).unwrap_err();
        }
    }
}
