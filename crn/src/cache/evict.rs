//! Which files make room. Pure.

/// A file that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<K> {
    /// Its name.
    pub key: K,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// When it was last used: larger is later.
    pub last_used: u64,
    /// Whether a machine uses it now; such files stay.
    pub in_use: bool,
}

/// There is no room, whatever goes. Retry when machines have ended, or give the cache more space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{needed_bytes} bytes do not fit beside the {in_use_bytes} bytes in use: the limit is {limit_bytes} bytes (files.limit_mib)"
)]
pub struct Full {
    /// What was asked for.
    pub needed_bytes: u64,
    /// What cannot go.
    pub in_use_bytes: u64,
    /// The bound.
    pub limit_bytes: u64,
}

/// The least recently used files whose end makes room for `needed_bytes` within `limit_bytes`.
///
/// # Errors
/// [`Full`] when even all of them do not.
pub fn select<K: Clone>(files: &[Candidate<K>], limit_bytes: u64, needed_bytes: u64) -> Result<Vec<K>, Full> {
    let total = |in_use_only: bool| {
        files
            .iter()
            .filter(|file| file.in_use || !in_use_only)
            .fold(0_u64, |sum, file| sum.saturating_add(file.size_bytes))
    };
    let in_use_bytes = total(true);
    if in_use_bytes.saturating_add(needed_bytes) > limit_bytes {
        return Err(Full { needed_bytes, in_use_bytes, limit_bytes });
    }
    let mut idle: Vec<_> = files.iter().filter(|file| !file.in_use).collect();
    idle.sort_by_key(|file| file.last_used);
    let mut excess_bytes = total(false).saturating_add(needed_bytes).saturating_sub(limit_bytes);
    let mut gone = Vec::new();
    for file in idle {
        if excess_bytes == 0 {
            break;
        }
        excess_bytes = excess_bytes.saturating_sub(file.size_bytes);
        gone.push(file.key.clone());
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(key: u32, size_bytes: u64, last_used: u64, in_use: bool) -> Candidate<u32> {
        Candidate { key, size_bytes, last_used, in_use }
    }

    #[test]
    fn the_least_recently_used_go_first_and_no_more_than_needed() {
        let files = [file(1, 10, 3, false), file(2, 10, 1, false), file(3, 10, 2, false)];
        assert_eq!(select(&files, 40, 10), Ok(vec![]));
        assert_eq!(select(&files, 40, 11), Ok(vec![2]));
        assert_eq!(select(&files, 40, 21), Ok(vec![2, 3]));
        assert_eq!(select(&files, 40, 40), Ok(vec![2, 3, 1]));
    }

    #[test]
    fn what_is_in_use_stays() {
        let files = [file(1, 10, 1, true), file(2, 10, 2, false)];
        assert_eq!(select(&files, 20, 5), Ok(vec![2]));
        assert_eq!(select(&files, 20, 11), Err(Full { needed_bytes: 11, in_use_bytes: 10, limit_bytes: 20 }));
    }

    proptest! {
        #[test]
        fn room_is_made_or_there_is_none(
            files in proptest::collection::vec((0..100_u64, 0..50_u64, any::<bool>()), 0..20),
            limit_bytes in 0..500_u64,
            needed_bytes in 0..200_u64,
        ) {
            let files: Vec<_> = (0..).zip(files).map(|(key, (size, used, in_use))| file(key, size, used, in_use)).collect();
            let size = |keep: &dyn Fn(&Candidate<u32>) -> bool| files.iter().filter(|file| keep(file)).map(|file| file.size_bytes).sum::<u64>();
            match select(&files, limit_bytes, needed_bytes) {
                Ok(gone) => {
                    prop_assert!(size(&|file| !gone.contains(&file.key)) + needed_bytes <= limit_bytes);
                    for key in &gone {
                        prop_assert!(!files[*key as usize].in_use);
                    }
                    // The last to go was needed.
                    if let Some((last, others)) = gone.split_last() {
                        prop_assert!(files[*last as usize].size_bytes == 0 || size(&|file| !others.contains(&file.key)) + needed_bytes > limit_bytes);
                    }
                }
                Err(_) => prop_assert!(size(&|file| file.in_use) + needed_bytes > limit_bytes),
            }
        }
    }
}
