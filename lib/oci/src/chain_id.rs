//! Chain ids: the names of stacked layers.

use gantry_core::Digest;
use sha2::{Digest as _, Sha256};

/// The chain id of each prefix of `diff_ids`, from the first layer upwards.
///
/// Source: OCI image specification, `config.md`, "Layer ChainID".
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chains.last() {
            None => diff_id.clone(),
            Some(parent) => Digest::sha256(Sha256::digest(format!("{parent} {diff_id}"))),
        };
        chains.push(next);
    }
    chains
}

/// The chain id of all of `diff_ids`; `None` if there are none.
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    chain_ids(diff_ids).pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_hash_parent_and_layer() {
        let a = Digest::sha256(Sha256::digest(b"a"));
        let b = Digest::sha256(Sha256::digest(b"b"));
        let chains = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chains[0], a);
        // Computed with coreutils: printf 'sha256:%s sha256:%s' of the two sums, through sha256sum.
        let expected =
            Digest::parse("sha256:51c0c8ace48498d6f5fee6b0592cc06f2da0f3cbe09c5a34a97dce85c3889676").unwrap();
        assert_eq!(chains[1], expected);
        assert_eq!(chain_id(&[a, b]), Some(expected));
        assert_eq!(chain_id(&[]), None);
    }
}
