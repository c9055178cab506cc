//! What the system says of this process, under the names that Prometheus's own clients use.
//!
//! Read from `/proc` where there is one; what cannot be read is left out, so that nothing is shown as 0 that is unknown.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::text::Family;
use crate::clock::Timestamp;

/// The families of a process that began at `started`.
pub(super) fn families(started: Timestamp) -> impl Iterator<Item = Family> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let started = started.0 as f64 / 1_000.0;
    let families = [
        Some(
            Family::gauge("process_start_time_seconds", "When the server started, in seconds since 1970.")
                .number([], started),
        ),
        Some(
            Family::counter("process_cpu_seconds_total", "Time that all processors have spent on this process.")
                .number([], cpu_seconds()),
        ),
        field(&status, "VmRSS:").map(|kilobytes| {
            Family::gauge("process_resident_memory_bytes", "Memory of this process that is in use.")
                .count([], kilobytes.saturating_mul(1024))
        }),
        open_files().map(|files| Family::gauge("process_open_fds", "Files and sockets that are open.").size([], files)),
        Some(max_files()),
        field(&status, "Threads:")
            .map(|threads| Family::gauge("process_threads", "Threads of this process.").count([], threads)),
    ];
    families.into_iter().flatten()
}

fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 * 1e-9
}

/// The kernel tells the number as a size since 6.2; before, the entries have to be counted.
fn open_files() -> Option<usize> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count()),
        told => usize::try_from(told).ok(),
    }
}

fn max_files() -> Family {
    let family = Family::gauge("process_max_fds", "Files and sockets that may be open at once.");
    match getrlimit(Resource::Nofile).current {
        Some(most) => family.count([], most),
        None => family.number([], f64::INFINITY),
    }
}

/// A number in the lines of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_the_lines_of_the_status() {
        let status = "Name:\trejoin\nVmRSS:\t    5312 kB\nThreads:\t9\n";
        assert_eq!((field(status, "VmRSS:"), field(status, "Threads:")), (Some(5312), Some(9)));
        assert_eq!((field(status, "VmSwap:"), field("Threads:\tmany", "Threads:")), (None, None));
    }
}
