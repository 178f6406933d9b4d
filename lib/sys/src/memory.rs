//! What this process holds of its memory.

use std::fs;

use gantry_core::{Result, ResultExt};

/// Lets go of the pages of program files that this process has mapped and only reads: its code, its libraries'
/// code, and their constants. The kernel keeps them for whoever needs them, and brings back those that are used again.
/// For a process that worked for a moment and now waits for hours. Returns how many bytes it let go of at most.
///
/// # Errors
/// If the list of mappings cannot be read.
pub fn forget_code() -> Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps").context("read /proc/self/maps")?;
    let mut forgotten = 0;
    for (start, end) in maps.lines().filter_map(code) {
        // SAFETY: the range is a private mapping of a file that is not writable, and, by what `code` looks for, never
        // was: each page in it is as in the file, and is read from there again when touched. Nothing is unmapped. Should
        // the range have become another mapping since the list was read, which takes unloading a library, the kernel
        // would be told the same about that; no library is ever unloaded here.
        let done = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        // Refused for a locked range; then it stays.
        if done == 0 {
            forgotten += end - start;
        }
    }
    Ok(forgotten)
}

/// Gives memory that was allocated once and is free now back to the system: the allocator keeps it for later, whatever it
/// was that needed so much for a moment.
pub fn return_free_memory() {
    // SAFETY: takes no pointer, and touches only what the allocator itself knows to be free.
    unsafe { libc::malloc_trim(0) };
}

/// Blocks from here on, in bytes, go back to the system when they are freed. Smaller ones are reused, which is faster.
const LARGE_BLOCK_BYTES: libc::c_int = 4 << 20;

/// Has large blocks returned to the system as soon as they are free, whatever was allocated before. Source: mallopt(3): the
/// threshold otherwise grows to the largest block that was ever freed, up to 32 MiB, and messages of that size would stay in
/// the allocator's arenas, once for each thread.
pub fn return_large_blocks() {
    // SAFETY: takes no pointer; the setting is the allocator's own, guarded by its own lock.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES) };
}

/// The range of a line of `/proc/PID/maps` that holds code, or constants that no loader ever changes.
///
/// Source: proc(5). Executable mappings of files are never written. Of the read-only ones, those that begin at the
/// file's start hold headers and constants; others may be tables that the loader changed before it closed them.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let file = fields.nth(2)?;
    let constant = mode == "r--p" && offset.bytes().all(|digit| digit == b'0');
    if !file.starts_with('/') || !(mode == "r-xp" || constant) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_and_constants_of_files_are_let_go() {
        let line = |mode: &str, offset: &str, file: &str| format!("1000-3000 {mode} {offset} 08:01 7 {file}");
        assert_eq!(code(&line("r-xp", "00001000", "/bin/x")), Some((0x1000, 0x3000)));
        assert_eq!(code(&line("r--p", "00000000", "/bin/x")), Some((0x1000, 0x3000)));
        assert_eq!(code(&line("r--p", "00004000", "/bin/x")), None);
        assert_eq!(code(&line("rw-p", "00000000", "/bin/x")), None);
        assert_eq!(code(&line("r-xp", "00000000", "[vdso]")), None);
        assert_eq!(code("1000-3000 rw-p 00000000 00:00 0"), None);
        assert_eq!(code("nonsense"), None);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        assert!(forget_code().unwrap() > 0);
        let sum: u64 = (0..1000).sum();
        assert_eq!(sum, 499_500);
        assert!(forget_code().unwrap() > 0);
    }
}
