//! Whose trouble the end of a call is (plugins spec 4.7).

use wasmtime::Trap;

/// What a failed call says about the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    /// The plugin's mistake, and the same on every node.
    Deterministic,
    /// It used up its fuel: the same on every node of the profile.
    OutOfFuel,
    /// The stack of this machine's compiled code: another build may do without. No verdict may follow from it.
    NotPortable,
    /// This node's trouble: time, memory, disk. Another moment may be better.
    Node,
}

impl FailureClass {
    /// As it is shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deterministic => "deterministic",
            Self::OutOfFuel => "out-of-fuel",
            Self::NotPortable => "not-portable",
            Self::Node => "node",
        }
    }
}

/// The class of a trap; none for one that this version of wasmtime does not have.
///
/// Everything that a plugin can bring about by its own instructions is deterministic, but for the two that look at the machine: how deep the
/// stack goes, and how long it has taken.
pub(super) fn class_of(trap: Trap) -> Option<FailureClass> {
    use FailureClass as Class;
    Some(match trap {
        Trap::OutOfFuel => Class::OutOfFuel,
        Trap::StackOverflow => Class::NotPortable,
        Trap::Interrupt => Class::Node,
        Trap::MemoryOutOfBounds
        | Trap::TableOutOfBounds
        | Trap::IndirectCallToNull
        | Trap::BadSignature
        | Trap::IntegerOverflow
        | Trap::IntegerDivisionByZero
        | Trap::BadConversionToInteger
        | Trap::UnreachableCodeReached
        | Trap::CannotEnterComponent
        | Trap::CannotLeaveComponent
        | Trap::InvalidChar
        | Trap::InvalidDiscriminant
        | Trap::UnalignedPointer
        | Trap::StringOutOfBounds
        | Trap::ListOutOfBounds
        | Trap::DebugAssertStringEncodingFinished
        | Trap::DebugAssertEqualCodeUnits
        | Trap::DebugAssertPointerAligned
        | Trap::DebugAssertUpperBitsUnset
        // Of proposals that the profile switches off: a component that needs them does not compile.
        | Trap::HeapMisaligned
        | Trap::AtomicWaitNonSharedMemory
        | Trap::NullReference
        | Trap::ArrayOutOfBounds
        | Trap::CastFailure
        | Trap::UnhandledTag
        | Trap::ContinuationAlreadyConsumed
        | Trap::UncaughtException
        | Trap::NoAsyncResult
        | Trap::AsyncDeadlock
        | Trap::CannotBlockSyncTask
        | Trap::TaskCancelNotCancelled
        | Trap::TaskCancelOrReturnTwice
        | Trap::SubtaskCancelAfterTerminal
        | Trap::TaskReturnInvalid
        | Trap::WaitableSetDropHasWaiters
        | Trap::SubtaskDropNotResolved
        | Trap::ThreadNewIndirectInvalidType
        | Trap::ThreadNewIndirectUninitialized
        | Trap::BackpressureOverflow
        | Trap::UnsupportedCallbackCode
        | Trap::CannotResumeThread
        | Trap::ConcurrentFutureStreamOp
        | Trap::ReferenceCountOverflow
        | Trap::StreamOpTooBig
        | Trap::WaitableSyncAndAsync => Class::Deterministic,
        // The engine's own limits, of this machine or of an interpreter that is not used.
        Trap::AllocationTooLarge | Trap::DisabledOpcode => Class::Node,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new version of wasmtime with a new trap fails here, and not by a wrong verdict.
    #[test]
    fn every_trap_has_a_class() {
        let traps: Vec<Trap> = (0..=u8::MAX).filter_map(Trap::from_u8).collect();
        assert!(traps.len() >= 30, "only {} traps were found", traps.len());
        for trap in traps {
            assert!(class_of(trap).is_some(), "{trap:?} has no class");
        }
    }
}
