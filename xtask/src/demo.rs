//! To come.
use crate::step::Result;
pub(crate) fn demo(_: &[&str]) -> Result<()> {
    Err("not built yet".to_owned())
}
