//! Which run of the machine this is.

use std::sync::OnceLock;

use gantry_core::{Error, Result, ResultExt};

/// The id of this boot: differs after every start of the machine.
///
/// # Errors
/// When `/proc` is missing.
pub fn boot_id() -> Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(PATH).with_context(|| format!("read {PATH}"))?;
    let id = id.trim();
    if id.is_empty() {
        return Err(Error::internal(format!("{PATH} is empty")));
    }
    Ok(ID.get_or_init(|| id.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_boot_id_stays_the_same() {
        let id = super::boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id, super::boot_id().unwrap());
    }
}
