//! Ids: the same seed and the same script make the same ones.

use sha2::{Digest, Sha256};

/// The id of the `n`th thing made, in the form of the room's version (P53): `$n:model.test` in versions 1 and 2, a
/// hash with `/` and `+` in it in version 3, a hash fit for URLs after that.
pub(super) fn event_id(version: &str, seed: u64, n: u64) -> String {
    let hash = hash(seed, n);
    match version {
        "1" | "2" => format!("${n}:model.test"),
        "3" => format!("${}/{}+{}", &hash[..9], &hash[10..20], &hash[21..]).replace(['-', '_'], "/"),
        _ => format!("${hash}"),
    }
}

/// 43 characters fit for URLs.
pub(super) fn hash(seed: u64, n: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digest = Sha256::digest(format!("{seed}/{n}"));
    let bit = |i: usize| digest.get(i / 8).is_some_and(|byte| byte & (0x80 >> (i % 8)) != 0);
    let sextet = |i: usize| (0..6).fold(0, |value, k| value << 1 | usize::from(bit(i * 6 + k)));
    (0..43).map(|i| char::from(ALPHABET[sextet(i)])).collect()
}
