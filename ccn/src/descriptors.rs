//! Open files and connections that the system allows a process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open beside connections: the store, plugins, what is being read and written.
const OTHERS: u64 = 512;

/// Raises what is allowed to what so many connections need, as far as the system lets it. Says in the log when that is less.
pub fn allow(connections: usize) {
    let wanted = connections as u64 + OTHERS;
    let allowed = getrlimit(Resource::Nofile);
    let Some(limit) = raised(allowed, wanted) else { return };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the number of open files cannot be raised: {error}");
        return;
    }
    if let Some(most) = limit.current.filter(|most| *most < wanted) {
        tracing::warn!(
            "the system allows {most} open files, {connections} connections need {wanted}: raise the hard limit (LimitNOFILE of a service, ulimit -Hn), or lower limits.max_connections"
        );
    }
}

/// The limit to set; none where enough is allowed already.
fn raised(allowed: Rlimit, wanted: u64) -> Option<Rlimit> {
    let is_enough = allowed.current.is_none_or(|current| current >= wanted);
    let most = allowed.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    (!is_enough).then_some(Rlimit { current: Some(most), maximum: allowed.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_raised_as_far_as_allowed_and_never_lowered() {
        let check = |current: Option<u64>, maximum: Option<u64>, expect: Option<u64>| {
            let found = raised(Rlimit { current, maximum }, 10_000);
            assert_eq!(found.and_then(|limit| limit.current), expect, "{current:?} {maximum:?}");
            assert!(found.is_none_or(|limit| limit.maximum == maximum));
        };
        check(Some(1024), Some(20_000), Some(10_000));
        check(Some(1024), Some(4096), Some(4096));
        check(Some(1024), None, Some(10_000));
        check(Some(10_000), Some(10_000), None);
        check(Some(50_000), Some(50_000), None);
        check(None, None, None);
    }
}
