//! Amounts of memory as people write them.

/// Reads `64m`, `1.5GiB`, `1048576`: a number and a unit, in powers of 1024; without one, bytes.
///
/// Source: `ctr run --memory-limit` takes bytes, Docker's `--memory` these units.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no amount of memory; write for example 67108864, 64m or 1.5g");
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(wrong);
    }
    let size = number.parse::<f64>().map_err(|_| wrong())? * (1u64 << shift) as f64;
    // Beyond this, numbers with a fraction lose whole bytes.
    if size >= 1.0 && size < (1u64 << 53) as f64 { Ok(size as i64) } else { Err(wrong()) }
}

/// Reads a share of processors: `0.5`, `2`.
pub(crate) fn cpus(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no number of processors; write for example 0.5 or 2");
    let cpus = text.parse::<f64>().map_err(|_| wrong())?;
    if cpus > 0.0 && cpus.is_finite() { Ok(cpus) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_powers_of_1024() {
        for (text, size) in [
            ("67108864", 64 << 20),
            ("64m", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1.5G", 3 << 29),
            ("10b", 10),
            ("2kb", 2048),
            ("1t", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_of_memory_is_refused() {
        for text in ["", "m", "-1", "0", "1x", "1.2.3m", "99999999999999t", "0.0001", "inf", "nan"] {
            assert!(bytes(text).unwrap_err().contains("64m"), "{text}");
        }
    }

    #[test]
    fn processors_are_above_nothing() {
        assert_eq!(cpus("0.5"), Ok(0.5));
        for text in ["0", "-1", "x", "inf", "NaN", ""] {
            cpus(text).unwrap_err();
        }
    }
}
