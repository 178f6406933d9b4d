//! The order in which plugins start.

use gantry_core::{Error, Result};

use crate::Plugin;

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// The indices of `plugins` so that each comes after every plugin of the kinds it requires, and otherwise in the
/// order given.
///
/// # Errors
/// `InvalidArgument` naming a plugin that requires itself, directly or not, or a pair listed twice.
pub fn order(plugins: &[&Plugin]) -> Result<Vec<usize>> {
    for (index, plugin) in plugins.iter().enumerate() {
        if plugins[..index].iter().any(|other| other.kind == plugin.kind && other.id == plugin.id) {
            return Err(Error::invalid_argument(format!("plugin {} is listed twice", plugin.uri())));
        }
    }
    let mut marks = vec![Mark::New; plugins.len()];
    let mut ordered = Vec::with_capacity(plugins.len());
    for index in 0..plugins.len() {
        visit(index, plugins, &mut marks, &mut ordered)?;
    }
    Ok(ordered)
}

fn visit(index: usize, plugins: &[&Plugin], marks: &mut [Mark], ordered: &mut Vec<usize>) -> Result<()> {
    match marks[index] {
        Mark::Done => return Ok(()),
        Mark::Open => {
            return Err(Error::invalid_argument(format!("plugin {} requires itself", plugins[index].uri())));
        }
        Mark::New => marks[index] = Mark::Open,
    }
    for kind in plugins[index].requires {
        for needed in (0..plugins.len()).filter(|&needed| plugins[needed].kind == *kind && needed != index) {
            visit(needed, plugins, marks, ordered)?;
        }
    }
    marks[index] = Mark::Done;
    ordered.push(index);
    Ok(())
}
