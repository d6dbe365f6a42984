//! Many messages under one signature: a hash tree whose root is signed (ADR 0002).
//!
//! A leaf is the digest of one message's manifest, an inner node that of its two children, under different prefixes, so that
//! neither passes for the other (RFC 6962 section 2.1). The signature covers a manifest with the root as its one entry: another
//! form than a message's, so that no tree passes for a message. A batched signature is the message's own path through the
//! tree, then the CMS that all messages of the batch share:
//!
//! ```text
//! steps (1 byte, 1 to 6) · steps × [side of the sibling (0 left, 1 right) · sibling (64 bytes)] · CMS
//! ```
//!
//! A signature of one message is the CMS alone. It begins with the tag of a SEQUENCE, which is no number of steps.

use crate::digest::sha512;

/// Longest path.
const MAX_STEPS: usize = 6;
/// Most messages under one signature.
pub const MAX_BATCH: usize = 1 << MAX_STEPS;

const LEAF: u8 = 0;
const INNER: u8 = 1;
const LEFT: u8 = 0;
const RIGHT: u8 = 1;
const STEP: usize = 1 + size_of::<Node>();

/// A node of the tree.
pub(crate) type Node = [u8; 64];

/// The leaf of a message.
pub(crate) fn leaf(manifest: &[u8]) -> Node {
    sha512(&[&[LEAF], manifest].concat())
}

fn inner(left: &Node, right: &Node) -> Node {
    sha512(&[&[INNER], left.as_slice(), right.as_slice()].concat())
}

/// The root over the leaves, and for each of them its path as it stands before the CMS. Nothing for fewer than two leaves, which
/// need no tree, and for more than [`MAX_BATCH`].
pub(crate) fn tree(leaves: &[Node]) -> Option<(Node, Vec<Vec<u8>>)> {
    if !(2..=MAX_BATCH).contains(&leaves.len()) {
        return None;
    }
    let mut paths = vec![vec![0]; leaves.len()];
    let mut level = leaves.to_vec();
    for height in 0..MAX_STEPS {
        for (index, path) in paths.iter_mut().enumerate() {
            let place = index >> height;
            // The last of an odd number has no sibling and goes up as it is.
            if let Some(sibling) = level.get(place ^ 1) {
                path[0] += 1;
                path.push(if place % 2 == 0 { RIGHT } else { LEFT });
                path.extend_from_slice(sibling);
            }
        }
        let parents = level.chunks(2).map(|pair| match pair {
            [left, right] => inner(left, right),
            alone => alone[0],
        });
        level = parents.collect();
        if let [root] = level.as_slice() {
            return Some((*root, paths));
        }
    }
    None
}

/// A signature taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// Of one message.
    Single { cms: &'a [u8] },
    /// Of a batch.
    Batched { steps: &'a [u8], cms: &'a [u8] },
}

/// Tells the forms apart. Nothing for a path that is cut off or goes neither left nor right.
pub(crate) fn split(signature: &[u8]) -> Option<Form<'_>> {
    let count = match signature.split_first() {
        Some((count, _)) if (1..=MAX_STEPS).contains(&usize::from(*count)) => usize::from(*count),
        _ => return Some(Form::Single { cms: signature }),
    };
    let (steps, cms) = signature[1..].split_at_checked(count * STEP)?;
    steps.chunks_exact(STEP).all(|step| matches!(step[0], LEFT | RIGHT)).then_some(Form::Batched { steps, cms })
}

/// The root that a path leads to.
pub(crate) fn climb(leaf: Node, steps: &[u8]) -> Node {
    steps.chunks_exact(STEP).fold(leaf, |node, step| {
        let mut sibling = [0; 64];
        sibling.copy_from_slice(&step[1..]);
        if step[0] == LEFT { inner(&sibling, &node) } else { inner(&node, &sibling) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Node> {
        (0..count).map(|number| leaf(&number.to_be_bytes())).collect()
    }

    #[test]
    fn each_leaf_of_a_tree_of_any_size_leads_to_its_root() {
        for count in 2..=MAX_BATCH {
            let leaves = leaves(count);
            let (root, paths) = tree(&leaves).unwrap();
            for (leaf, path) in leaves.iter().zip(&paths) {
                let Some(Form::Batched { steps, cms }) = split(path) else { panic!("{count}: no path") };
                assert_eq!((climb(*leaf, steps), cms), (root, [].as_slice()), "{count}");
            }
            assert!(paths.iter().all(|path| path.len() <= 1 + MAX_STEPS * STEP));
        }
    }

    #[test]
    fn no_tree_for_too_few_or_too_many() {
        for count in [0, 1, MAX_BATCH + 1] {
            assert_eq!(tree(&leaves(count)), None, "{count}");
        }
    }

    /// The bytes are what peers of another version compute: fixed.
    #[test]
    fn the_root_is_that_of_the_rule() {
        let [a, b, c] = [leaf(b"a"), leaf(b"b"), leaf(b"c")];
        assert_eq!(a, sha512(b"\0a"));
        let left = sha512(&[[1].as_slice(), &a, &b].concat());
        let root = sha512(&[[1].as_slice(), &left, &c].concat());
        let (found, paths) = tree(&[a, b, c]).unwrap();
        assert_eq!(found, root);
        assert_eq!(paths[0], [[2, RIGHT].as_slice(), &b, &[RIGHT], &c].concat());
        assert_eq!(paths[1], [[2, LEFT].as_slice(), &a, &[RIGHT], &c].concat());
        assert_eq!(paths[2], [[1, LEFT].as_slice(), &left].concat());
    }

    #[test]
    fn what_is_no_path() {
        let cms = [0x30, 0x03, 1, 2, 3];
        assert_eq!(split(&cms), Some(Form::Single { cms: &cms }));
        // Left to the reader of CMS, which refuses them.
        for signature in [&[][..], &[0, 0x30], &[7; 600]] {
            assert_eq!(split(signature), Some(Form::Single { cms: signature }));
        }
        let (_, paths) = tree(&leaves(2)).unwrap();
        for cut in 1..paths[0].len() {
            assert_eq!(split(&paths[0][..cut]), None, "{cut}");
        }
        let mut sideways = paths[0].clone();
        sideways[1] = 2;
        assert_eq!(split(&sideways), None);
    }
}
