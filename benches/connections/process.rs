//! What the system says about this process.

use std::{fs, time::Duration};

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

/// How often memory is looked at until it has settled, and how often it must have been the same.
const LOOK: Duration = Duration::from_millis(250);
const STEADY: usize = 4;
/// A difference that is none, in KiB.
const NOTHING: u64 = 64;
/// Looks until memory is taken as it is.
const LOOKS: usize = 80;

/// Memory of this process, in KiB.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// Everything that is in memory.
    pub(crate) resident: u64,
    /// Of that, what belongs to no file: the heap and the stacks.
    pub(crate) anonymous: u64,
}

pub(crate) fn memory() -> Memory {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("this measures on Linux only");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    Memory { resident: field("Rss:"), anonymous: field("Anonymous:") }
}

/// Memory once it has stopped moving.
pub(crate) async fn settled() -> Memory {
    let (mut last, mut steady) = (memory(), 0);
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        let now = memory();
        steady = if now.resident.abs_diff(last.resident) <= NOTHING { steady + 1 } else { 0 };
        last = now;
        if steady == STEADY {
            break;
        }
    }
    last
}

/// Processor time of all threads of this process so far, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// How busy the machine was in the last minute: figures taken on a busy one are high.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// As many open files as the system allows; children inherit it.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("raise it with ulimit -n");
}
