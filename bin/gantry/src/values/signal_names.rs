//! The names of signals.

/// Source: signal(7), the numbers of x86 and ARM.
const NAMES: &[(&str, u32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", MAX),
];
const MAX: u32 = 64;
/// The signal that cannot be caught.
pub(crate) const KILL: u32 = 9;

/// Reads `KILL`, `SIGKILL`, `kill`, `9` or `RTMIN+3`.
pub(crate) fn signal(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} is no signal; write for example TERM, SIGTERM or 15");
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=MAX).contains(&number) { Ok(number) } else { Err(wrong()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let (base, distance) = match name.split_once('+') {
        Some(("RTMIN", distance)) => ("RTMIN", distance.parse::<u32>().map_err(|_| wrong())?),
        Some(_) => return Err(wrong()),
        None => (name, 0),
    };
    let number =
        NAMES.iter().find(|(known, _)| *known == base).map(|(_, number)| *number).ok_or_else(wrong)?;
    number.checked_add(distance).filter(|number| *number <= MAX).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX", 64)]
        {
            assert_eq!(signal(text), Ok(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        for text in ["", "0", "65", "SIG", "TERMINATE", "-9", "TERM+1", "RTMIN+99", "SIGSIGKILL"] {
            assert!(signal(text).unwrap_err().contains("SIGTERM"), "{text}");
        }
    }
}
