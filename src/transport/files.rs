//! The system's limit on open files, of which each stream is one.
//!
//! A process that has used it up can open neither its database nor a connection to an agent, so that streams are
//! refused before that.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The least that is kept for everything but streams.
const KEPT: u64 = 32;

/// Raises the limit as far as the system lets this process.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::warn!(%error, limit.current, "the limit of open files cannot be raised");
    }
}

/// How many streams there may be at once, with `reserved` files for others and an eighth of all kept beside. `None`
/// where the system has no limit.
pub fn max_streams(reserved: usize) -> Option<usize> {
    let limit = getrlimit(Resource::Nofile).current?;
    Some(usize::try_from(share(limit, reserved as u64)).unwrap_or(usize::MAX))
}

fn share(limit: u64, reserved: u64) -> u64 {
    limit.saturating_sub((limit / 8).max(KEPT) + reserved).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_for_the_database_and_the_agents() {
        for (limit, reserved, streams) in [(1_024, 8, 888), (100_000, 0, 87_500), (128, 8, 88), (20, 8, 1)] {
            assert_eq!(share(limit, reserved), streams, "{limit}");
        }
        assert!(max_streams(0) > max_streams(8) || max_streams(0).is_none());
    }
}
