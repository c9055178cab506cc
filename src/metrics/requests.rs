//! HTTP requests that were answered, by route and status.
//!
//! Knows no HTTP library. Its invariant: what is counted under is a route of this server or [`ELSEWHERE`], and never
//! what a client wrote, so that no client can make the list longer.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

/// The route of requests that no route serves.
const ELSEWHERE: &str = "none";

/// The counts. Cheap to share.
#[derive(Debug, Default)]
pub struct Requests {
    answered: DashMap<u16, DashMap<Box<str>, AtomicU64>>,
}

impl Requests {
    /// A request to this route, as it was declared, was answered with this status; without one it was nobody's.
    pub fn count(&self, route: Option<&str>, status: u16) {
        let route = route.unwrap_or(ELSEWHERE);
        let known = self
            .answered
            .get(&status)
            .is_some_and(|routes| routes.get(route).map(|count| count.fetch_add(1, Ordering::Relaxed)).is_some());
        if !known {
            let routes = self.answered.entry(status).or_default();
            routes.entry(route.into()).or_default().fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts, in the order of routes and statuses.
    pub(super) fn read(&self) -> Vec<(Box<str>, u16, u64)> {
        let mut all = Vec::new();
        for routes in &self.answered {
            let status = *routes.key();
            all.extend(routes.iter().map(|count| (count.key().clone(), status, count.load(Ordering::Relaxed))));
        }
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let requests = Requests::default();
        std::thread::scope(|scope| {
            (0..4).for_each(|_| {
                scope.spawn(|| {
                    (0..100).for_each(|_| {
                        requests.count(Some("/b"), 200);
                        requests.count(Some("/a/{id}"), 404);
                        requests.count(None, 404);
                    });
                });
            });
        });
        let read = requests.read();
        let read: Vec<_> = read.iter().map(|(route, status, count)| (&**route, *status, *count)).collect();
        assert_eq!(read, [("/a/{id}", 404, 400), ("/b", 200, 400), ("none", 404, 400)]);
    }
}
