//! Where a workload runs: a function of the workload and the compute nodes, so that all who know both say the same without asking anybody.
//!
//! Weighted rendezvous (network spec 4.2): each pair of workload and node draws a number `u` in (0, 1) from their hashes, and the node with the highest
//! `-weight / ln u` has the workload. A node that comes or goes moves only what it gains or loses. Logarithms are computed in integers: floating point
//! ones may differ in the last digit from machine to machine, and with it the answer.

use ccn_message::ItemHash;

/// A compute node that takes workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Under which it is registered.
    pub hash: String,
    /// How much it takes compared with others; one of weight 0 takes nothing that is not pinned to it.
    pub weight: u32,
}

/// Where a workload runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement<'a> {
    /// On that node.
    On(&'a Node),
    /// Its owner chose a node that is not among these.
    PinnedElsewhere,
    /// There is no node.
    Nowhere,
}

impl<'a> Placement<'a> {
    /// The node, if there is one.
    #[must_use]
    pub fn node(self) -> Option<&'a Node> {
        match self {
            Self::On(node) => Some(node),
            Self::PinnedElsewhere | Self::Nowhere => None,
        }
    }
}

/// Assigns a workload to a node. The order of the nodes does not matter.
#[must_use]
pub fn assign<'a>(workload: &str, pinned: Option<&str>, nodes: &'a [Node]) -> Placement<'a> {
    if let Some(pinned) = pinned {
        return nodes.iter().find(|node| node.hash == pinned).map_or(Placement::PinnedElsewhere, Placement::On);
    }
    let candidates = nodes.iter().filter(|node| node.weight > 0);
    let scored = candidates.map(|node| (Score { weight: node.weight, log: negative_log2(draw(workload, node)) }, node));
    let best = scored.max_by(|(a, x), (b, y)| a.cmp(b).then_with(|| y.hash.cmp(&x.hash)));
    best.map_or(Placement::Nowhere, |(_, node)| Placement::On(node))
}

/// The number of a pair: the first 64 bits of a hash, as a fraction of 2^64.
fn draw(workload: &str, node: &Node) -> u64 {
    let digest = ItemHash::sha256_of(format!("{workload}\n{}", node.hash).as_bytes());
    digest.sha256().and_then(|digest| digest.first_chunk::<8>()).map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// `weight / log`, compared without dividing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Score {
    weight: u32,
    log: u64,
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let product = |weight: u32, log: u64| u128::from(weight) * u128::from(log);
        product(self.weight, other.log).cmp(&product(other.weight, self.log))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Fractional bits of a logarithm.
const FRACTION_BITS: u32 = 32;

/// `-log2(number / 2^64)` with 32 fractional bits, rounded up and at least one unit; 0 counts as 1.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let whole = number.leading_zeros();
    // The number scaled to [1, 2), with 63 fractional bits; squaring it doubles its logarithm, whose bits come out one by one.
    let mut mantissa = u128::from(number << whole);
    let mut fraction: u64 = 0;
    for _ in 0..FRACTION_BITS {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >= 1 << 64 {
            fraction |= 1;
            mantissa >>= 1;
        }
    }
    // log2(number) = 63 - whole + fraction.
    ((u64::from(whole) + 1) << FRACTION_BITS).saturating_sub(fraction).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, weight: u32) -> Node {
        Node { hash: name.to_owned(), weight }
    }

    fn nodes(count: usize) -> Vec<Node> {
        (0..count).map(|number| node(&format!("node {number}"), 1)).collect()
    }

    /// How many of some workloads each node has.
    fn loads(nodes: &[Node], count: usize) -> Vec<usize> {
        let mut loads = vec![0; nodes.len()];
        for number in 0..count {
            let placed = assign(&format!("workload {number}"), None, nodes).node().expect("a node");
            loads[nodes.iter().position(|node| node == placed).expect("one of them")] += 1;
        }
        loads
    }

    #[test]
    fn pins_are_kept() {
        let nodes = [node("a", 1), node("idle", 0)];
        assert_eq!(assign("w", Some("idle"), &nodes), Placement::On(&nodes[1]));
        assert_eq!(assign("w", Some("elsewhere"), &nodes), Placement::PinnedElsewhere);
        assert_eq!(assign("w", None, &nodes), Placement::On(&nodes[0]));
        assert_eq!(assign("w", None, &nodes[1..]), Placement::Nowhere);
        assert_eq!(assign("w", None, &[]), Placement::Nowhere);
    }

    #[test]
    fn shares_follow_weights() {
        for load in loads(&nodes(8), 4000) {
            assert!((400..600).contains(&load), "{load}");
        }
        let loads = loads(&[node("a", 1), node("b", 3)], 4000);
        assert!((900..1100).contains(&loads[0]), "{loads:?}");
    }

    #[test]
    fn logarithms_are_those_of_arithmetic() {
        for number in [1, 2, 3, 1000, 1 << 32, u64::MAX / 3, u64::MAX / 2, u64::MAX - 5, u64::MAX] {
            let expected = 64.0 - (number as f64).log2();
            let found = negative_log2(number) as f64 / f64::from(2).powi(32);
            assert!((found - expected).abs() < 1e-8, "{number}: {found} {expected}");
        }
        assert_eq!(negative_log2(0), 64 << FRACTION_BITS);
        assert_eq!(negative_log2(1 << 63), 1 << FRACTION_BITS);
        assert!(negative_log2(u64::MAX) >= 1);
    }

    /// What every node of the network must say, today and after every change of this file. Computed apart from it, with floating point.
    #[test]
    fn assignments_are_pinned_down() {
        let nodes = nodes(5);
        let placed: Vec<&str> = (0..6)
            .filter_map(|number| assign(&format!("workload {number}"), None, &nodes).node())
            .map(|node| node.hash.as_str())
            .collect();
        assert_eq!(placed, GOLDEN);
    }

    const GOLDEN: [&str; 6] = ["node 2", "node 0", "node 2", "node 1", "node 4", "node 4"];

    proptest! {
        /// Order does not matter, and a node that goes moves only what it had.
        #[test]
        fn little_moves(count in 2_usize..8, gone in 0_usize..8, turn in 0_usize..8) {
            let whole = nodes(count);
            let mut turned = whole.clone();
            turned.rotate_left(turn % count);
            let mut fewer = whole.clone();
            let gone = fewer.remove(gone % count);
            for number in 0..50 {
                let workload = format!("workload {number}");
                let placed = assign(&workload, None, &whole).node().expect("a node");
                prop_assert_eq!(assign(&workload, None, &turned).node(), Some(placed));
                if *placed != gone {
                    prop_assert_eq!(assign(&workload, None, &fewer).node(), Some(placed));
                }
            }
        }

        #[test]
        fn logarithms_fall(a: u64, b: u64) {
            if a < b {
                prop_assert!(negative_log2(a) >= negative_log2(b));
            }
        }
    }
}
