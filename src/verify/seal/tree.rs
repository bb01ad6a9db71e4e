//! The Merkle tree of a day (RFC 9162, section 2.1.1): a leaf for each event, a root over all of them.

use sha2::{Digest as _, Sha256};

use crate::matrix::json::write_canonical_text;

pub(crate) type Hash = [u8; 32];

/// The leaf of an event: SHA-256 over a zero byte and the canonical JSON of an array of three: the id of the event before
/// it in the room's order, its own id, and its stable hash in hexadecimal. The first is "" for the room's first event, and
/// null for an event without a position.
pub(crate) fn leaf(before: Option<&str>, event_id: &str, stable_sha256: &[u8]) -> Hash {
    let mut text = String::with_capacity(200);
    text.push_str("\0[");
    match before {
        Some(before) => write_canonical_text(before, &mut text),
        None => text.push_str("null"),
    }
    text.push(',');
    write_canonical_text(event_id, &mut text);
    text.push_str(",\"");
    push_hex(stable_sha256, &mut text);
    text.push_str("\"]");
    Sha256::digest(text).into()
}

/// The first eight bytes of a leaf.
pub(crate) fn fingerprint(leaf: &Hash) -> u64 {
    let [first, second, third, fourth, fifth, sixth, seventh, eighth, ..] = *leaf;
    u64::from_be_bytes([first, second, third, fourth, fifth, sixth, seventh, eighth])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}

/// A tree to which leaves are added. It keeps one hash for each of its levels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    leaves: u64,
    /// The roots of the full trees that the leaves make, the largest first: one for each bit of their number.
    full: Vec<Hash>,
}

impl Tree {
    pub(crate) fn add(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Two trees of the same size make one.
        for _ in 0..self.leaves.trailing_ones() {
            if let Some(left) = self.full.pop() {
                hash = node(&left, &hash);
            }
        }
        self.full.push(hash);
        self.leaves += 1;
    }

    pub(crate) fn leaves(&self) -> u64 {
        self.leaves
    }

    pub(crate) fn root(&self) -> Hash {
        let mut trees = self.full.iter().rev();
        let Some(last) = trees.next() else { return Sha256::digest([]).into() };
        trees.fold(*last, |right, left| node(left, &right))
    }
}

/// Continues a chain: SHA-256 over four lines: the chain so far in hexadecimal, which is empty at first, the day, the
/// number of events, and the root in hexadecimal.
pub(crate) fn chain(before: &[u8], day: &str, events: u64, root: &[u8]) -> Hash {
    Sha256::digest(format!("{}\n{day}\n{events}\n{}", hex(before), hex(root))).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut text);
    text
}

/// Appends bytes in hexadecimal.
pub(crate) fn push_hex(bytes: &[u8], to: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            to.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
}

/// The hash that these digits are. `None`: they are not 64 hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the RFC defines it, without its shortcuts.
    fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&root(left), &root(right))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_rfc() {
        let leaves: Vec<Hash> = (0..70).map(|number: u8| leaf(None, "$e", &[number])).collect();
        let mut tree = Tree::default();
        for number in 0..leaves.len() {
            assert_eq!(tree.root(), root(&leaves[..number]), "{number} leaves");
            tree.add(leaves[number]);
            assert_eq!(tree.leaves(), number as u64 + 1);
        }
    }

    #[test]
    fn an_independent_program_computes_the_same() {
        // printf '\0["$a","$b","00ff"]' | sha256sum
        assert_eq!(hex(&leaf(Some("$a"), "$b", &[0, 255])), LEAF);
        // printf '\0[null,"$b","00ff"]' | sha256sum
        assert_eq!(hex(&leaf(None, "$b", &[0, 255])), UNPLACED);
        // printf '\n2026-01-01\n3\n00' | sha256sum
        assert_eq!(hex(&chain(&[], "2026-01-01", 3, &[0])), CHAIN);
    }

    const LEAF: &str = "d8c1991bc57451b74d5eb98938b3c36d5391255ec9cbe92d98f02567edd2779c";
    const UNPLACED: &str = "c327a1a7a50c26d9badc9399ba35faabc6e4437d0f535d2946b7aa840dadcf5d";
    const CHAIN: &str = "7d19e46d7d37e1a46bedb9ff633844513ae5ff23e8153ecb457967070610a35f";
}
