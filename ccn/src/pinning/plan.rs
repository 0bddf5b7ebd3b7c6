//! What a file needs, and whose a pin is. No I/O.

use super::record::PinState;

/// What this node has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// Messages keep it.
    Kept,
    /// Nobody keeps it, and it will go unless somebody does.
    Lingering,
    /// It is gone, or has never been here.
    Gone,
}

/// What is to be done about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Give it to the IPFS node, and have it pinned there.
    Pin,
    /// See whether it is still pinned; if not, as above.
    Check,
    /// Take back the pin that this node has made.
    Unpin,
    /// Think no more of it: the pin is another's.
    LetGo,
}

/// What is to be done about a file, where `checking` says that what was done is looked at again.
pub(super) fn step(here: Here, row: Option<PinState>, checking: bool) -> Option<Step> {
    match (here, row) {
        (Here::Kept, None | Some(PinState::Begun)) => Some(Step::Pin),
        (Here::Kept, Some(PinState::Pinned { .. } | PinState::Found)) => checking.then_some(Step::Check),
        (Here::Gone, Some(PinState::Begun | PinState::Pinned { .. })) => Some(Step::Unpin),
        (Here::Gone, Some(PinState::Found)) => Some(Step::LetGo),
        // What lingers was kept a moment ago and may be again; what nobody has ever kept is not spread.
        (Here::Lingering, _) | (Here::Gone, None) => None,
    }
}

/// Whose a pin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// This node's.
    Ours {
        /// It says so itself.
        named: bool,
    },
    /// The operator's own, or another node's.
    Others,
}

/// Whose a pin of that name is, as far as the name and what was written down tell. In doubt it is another's: what is kept too long is a smaller harm
/// than what is lost.
pub(super) fn whose(name: &str, ours: &str, row: Option<PinState>) -> Whose {
    match row {
        _ if name == ours => Whose::Ours { named: true },
        _ if !name.is_empty() => Whose::Others,
        // Without a name: the program knows none, or somebody has pinned it anew without one.
        Some(PinState::Begun | PinState::Pinned { named: false }) => Whose::Ours { named: false },
        None | Some(PinState::Found | PinState::Pinned { named: true }) => Whose::Others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PINNED: PinState = PinState::Pinned { named: true };

    #[test]
    fn what_messages_keep_is_pinned_and_what_is_collected_is_not() {
        let check = |here, row, expect: Option<Step>, checking: Option<Step>| {
            assert_eq!((step(here, row, false), step(here, row, true)), (expect, checking), "{here:?} {row:?}");
        };
        check(Here::Kept, None, Some(Step::Pin), Some(Step::Pin));
        check(Here::Kept, Some(PinState::Begun), Some(Step::Pin), Some(Step::Pin));
        check(Here::Kept, Some(PINNED), None, Some(Step::Check));
        check(Here::Kept, Some(PinState::Found), None, Some(Step::Check));
        for row in [None, Some(PinState::Begun), Some(PINNED), Some(PinState::Found)] {
            check(Here::Lingering, row, None, None);
        }
        check(Here::Gone, None, None, None);
        check(Here::Gone, Some(PinState::Begun), Some(Step::Unpin), Some(Step::Unpin));
        check(Here::Gone, Some(PINNED), Some(Step::Unpin), Some(Step::Unpin));
        check(Here::Gone, Some(PinState::Found), Some(Step::LetGo), Some(Step::LetGo));
    }

    #[test]
    fn a_pin_is_ours_when_it_says_so_or_we_know_it() {
        let check = |name, row, expect| assert_eq!(whose(name, "ours", row), expect, "{name:?} {row:?}");
        let unnamed = PinState::Pinned { named: false };
        for row in [None, Some(PinState::Begun), Some(PINNED), Some(unnamed), Some(PinState::Found)] {
            check("ours", row, Whose::Ours { named: true });
            check("the operator's", row, Whose::Others);
        }
        check("", None, Whose::Others);
        check("", Some(PinState::Found), Whose::Others);
        check("", Some(PinState::Begun), Whose::Ours { named: false });
        check("", Some(unnamed), Whose::Ours { named: false });
        // It had our name and has none: somebody has pinned it anew.
        check("", Some(PINNED), Whose::Others);
    }
}
