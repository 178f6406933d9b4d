//! Sums of the registered algorithms.

use std::fmt::Write as _;
use std::io::{self, Read};

use gantry_core::Digest;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A sum in the making.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Sums as `digest` does; with SHA-256 if there is none. Source: containerd's canonical algorithm.
    pub(crate) fn like(digest: Option<&Digest>) -> Hasher {
        match digest.map(Digest::algorithm) {
            Some("sha384") => Hasher::Sha384(Sha384::new()),
            Some("sha512") => Hasher::Sha512(Sha512::new()),
            _ => Hasher::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(sum) => sum.update(bytes),
            Hasher::Sha384(sum) => sum.update(bytes),
            Hasher::Sha512(sum) => sum.update(bytes),
        }
    }

    /// Adds all of `from`, and says how much that was.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0u8; 1 << 20];
        let mut length = 0;
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(length),
                Ok(count) => {
                    self.update(&buffer[..count]);
                    length += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The sum so far.
    pub(crate) fn digest(&self) -> Digest {
        let (algorithm, sum): (&str, Vec<u8>) = match self.clone() {
            Hasher::Sha256(sum) => ("sha256", sum.finalize().to_vec()),
            Hasher::Sha384(sum) => ("sha384", sum.finalize().to_vec()),
            Hasher::Sha512(sum) => ("sha512", sum.finalize().to_vec()),
        };
        let mut text = format!("{algorithm}:");
        for byte in sum {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        Digest::parse(text).expect("a sum written in hexadecimal is a digest")
    }
}
