//! The catalogue: every family of the server's own, with its name, its help and where its numbers come from.
//!
//! `docs/metrics.md` says the same; a test compares the two.

use super::{Inner, process, text::Family};
use crate::{clock, pubsub::Status, store::Waiting};

impl Inner {
    /// All of them. `waiting` is what the store has said of queued turns, if it has answered.
    pub(super) fn families(&self, waiting: Option<Waiting>) -> Vec<Family> {
        let mut all = Vec::with_capacity(64);
        all.extend(self.server());
        all.extend(self.clients());
        all.extend(self.limits());
        all.extend(self.log());
        all.extend(self.turns(waiting));
        all.extend(self.agents());
        all.extend(self.nodes());
        all.extend(self.bus());
        all.push(self.http());
        all.extend(process::families(self.started));
        all
    }

    fn server(&self) -> [Family; 4] {
        let pool = self.sources.store.pool();
        let store = if self.sources.store.scope().is_some() { "postgres" } else { "sqlite" };
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        [
            Family::gauge("rejoin_build_info", "Always 1; the labels say what runs.")
                .size([("version", env!("CARGO_PKG_VERSION")), ("store", store)], 1),
            Family::gauge("rejoin_tasks", "Tasks of the server that are alive.").size([], tasks),
            Family::gauge("rejoin_store_connections", "Connections to the store with which sessions are read.")
                .size([("state", "busy")], pool.busy)
                .size([("state", "idle")], pool.idle),
            Family::gauge("rejoin_store_connections_max", "As many of them as there may be.").size([], pool.most),
        ]
    }

    fn clients(&self) -> Vec<Family> {
        let (host, connections) = (&self.sources.host, &self.sources.connections);
        let (counts, unwritten) = (host.counts(), connections.unwritten());
        let by_transport = connections.by_transport().into_iter().fold(
            Family::gauge("rejoin_connections", "Clients that are connected, by what moves their frames."),
            |family, (transport, count)| family.size([("transport", transport.name())], count),
        );
        let by_kind = host.channels().into_iter().fold(
            Family::gauge("rejoin_channels", "Joined channels, by what their topics begin with."),
            |family, (kind, count)| family.count([("kind", kind)], count),
        );
        vec![
            by_transport,
            by_kind,
            Family::gauge("rejoin_topics", "Topics that have subscribers on this node.")
                .size([], host.pubsub().topics()),
            Family::gauge("rejoin_presence_topics", "Topics on which anybody is shown.")
                .size([], self.sources.presence.topics()),
            Family::counter("rejoin_deliveries_total", "Broadcasts that were queued for a client.")
                .count([], counts.deliveries),
            Family::counter("rejoin_missed_total", "Ephemeral broadcasts that clients were told they have missed.")
                .count([], counts.missed),
            Family::counter(
                "rejoin_slow_consumers_total",
                "Times that a subscription fell behind, until it had caught up: back to the log, or by broadcasts that it missed.",
            )
            .count([], counts.slow_consumers),
            Family::counter("rejoin_replay_pages_total", "Pages of a log that were sent to those who were behind.")
                .count([], counts.pages),
            Family::gauge("rejoin_outbox_bytes", "Bytes that wait to be written to clients.").size([], unwritten.bytes),
            Family::gauge("rejoin_outbox_largest_bytes", "Those of the client for which most wait.")
                .size([], unwritten.largest),
        ]
    }

    fn limits(&self) -> [Family; 5] {
        let (host, refused) = (self.sources.host.counts(), self.sources.connections.refused());
        let streams = self.sources.lobby.counts();
        [
            Family::gauge("rejoin_streams", "TCP connections that are open, those of sockets among them.")
                .size([], streams.open),
            Family::counter(
                "rejoin_streams_cut_total",
                "TCP connections that were cut before they asked for anything.",
            )
            .count([("reason", "late")], streams.late)
            .count([("reason", "displaced")], streams.displaced)
            .count([("reason", "no_room")], streams.no_room),
            Family::counter("rejoin_connections_refused_total", "Clients that were refused for want of room.")
                .count([("reason", "draining")], refused.draining)
                .count([("reason", "full")], refused.full)
                .count([("reason", "too_often")], streams.too_often),
            Family::counter("rejoin_rate_limited_total", "What clients sent faster than they may.")
                .count([("what", "message")], host.rate_limited)
                .count([("what", "connection")], host.too_fast),
            Family::counter(
                "rejoin_stalled_readers_total",
                "Sockets that were closed because their client read nothing for too long.",
            )
            .count([], host.stalled),
        ]
    }

    fn log(&self) -> Vec<Family> {
        let tally = self.sources.sessions.tally();
        let snapshots: Vec<_> = tally.snapshots().collect();
        let given: u64 = snapshots.iter().map(|(_, count)| count).sum();
        vec![
            Family::counter("rejoin_events_appended_total", "Events that this node has appended to logs.")
                .count([], tally.events.get()),
            Family::histogram("rejoin_append_seconds", "How long one transaction of the log takes.")
                .distribution([], tally.append.read()),
            Family::histogram("rejoin_append_batch_items", "How many writes one transaction of the log holds.")
                .distribution([], tally.batch.read()),
            Family::gauge("rejoin_append_queue_items", "Writes that wait for the transaction before them.")
                .size([], self.sources.sessions.pulse().to_write),
            Family::counter("rejoin_append_failures_total", "Transactions of the log that were not committed.")
                .count([], tally.not_committed.get()),
            Family::counter("rejoin_replays_total", "Joins of sessions, by what they were answered with.")
                .count([("mode", "replay")], tally.replays.get())
                .count([("mode", "snapshot")], given),
            snapshots.iter().fold(
                Family::counter("rejoin_snapshots_total", "Joins that were answered with a snapshot, by why."),
                |family, (reason, count)| family.count([("reason", reason)], *count),
            ),
            Family::histogram("rejoin_join_seconds", "How long a session's join takes, without the way to the client.")
                .distribution([], tally.join.read()),
        ]
    }

    fn turns(&self, waiting: Option<Waiting>) -> Vec<Family> {
        let (tally, pulse) = (self.sources.sessions.tally(), self.sources.sessions.pulse());
        let turns = Family::gauge(
            "rejoin_turns",
            "Turns that run on this node, and turns that are queued in the whole store, which every node shows.",
        )
        .size([("status", "running")], pulse.running);
        let ended =
            Family::counter("rejoin_turns_ended_total", "Turns whose end this node has written, by how and why.");
        let queued = Family::gauge("rejoin_oldest_queued_seconds", "How long the oldest queued turn has waited.");
        let (turns, queued) = match waiting {
            Some(Waiting { queued: count, oldest }) => {
                let age = oldest.map_or(0, |oldest| (clock::now().0 - oldest.0).max(0));
                (turns.count([("status", "queued")], count), queued.number([], age as f64 / 1_000.0))
            }
            None => (turns, queued),
        };
        vec![
            turns,
            Family::gauge("rejoin_oldest_running_seconds", "How long the turn has run that has run longest here.")
                .number([], pulse.oldest_running.unwrap_or_default().as_secs_f64()),
            queued,
            Family::counter("rejoin_turns_started_total", "Turns that began to run on this node.")
                .count([], tally.started.get()),
            tally.ends().fold(ended, |family, (status, reason, count)| {
                family.count([("status", status.name()), ("reason", reason)], count)
            }),
        ]
    }

    fn agents(&self) -> [Family; 2] {
        let tally = self.sources.sessions.tally();
        let turn = Family::histogram("rejoin_turn_seconds", "How long turns run here, from start to end.");
        let first = Family::histogram("rejoin_turn_first_output_seconds", "How long until an agent's first output.");
        tally.agents().fold([turn, first], |[turn, first], (name, agent)| {
            [
                turn.distribution([("agent", name)], agent.turn.read()),
                first.distribution([("agent", name)], agent.first_output.read()),
            ]
        })
    }

    fn nodes(&self) -> Vec<Family> {
        let (tally, pulse) = (self.sources.sessions.tally(), self.sources.sessions.pulse());
        vec![
            pulse.nodes.into_iter().fold(
                Family::gauge("rejoin_nodes", "Nodes of the store, by state, as this one last read them."),
                |family, (state, count)| family.size([("state", state.name())], count),
            ),
            Family::gauge("rejoin_ready", "1 while this node is ready, as /readyz says it.")
                .size([], usize::from(pulse.ready)),
            Family::histogram("rejoin_lease_renew_seconds", "How long a renewal of the lease takes.")
                .distribution([], tally.renew.read()),
            Family::gauge("rejoin_lease_age_seconds", "How long ago the lease was renewed.")
                .number([], pulse.renewed.as_secs_f64()),
            Family::counter("rejoin_lease_failures_total", "Renewals of the lease that did not work.")
                .count([], tally.not_renewed.get()),
            Family::counter(
                "rejoin_retirements_total",
                "Times that this node was declared dead and returned as another.",
            )
            .count([], tally.retired.get()),
            Family::counter("rejoin_tombstones_total", "Other nodes that this one has declared dead.")
                .count([], tally.buried.get()),
        ]
    }

    fn bus(&self) -> Vec<Family> {
        let pubsub = self.sources.host.pubsub();
        let (counts, status) = (pubsub.counts(), pubsub.status());
        vec![
            [Status::Alone, Status::Away, Status::Connected].into_iter().fold(
                Family::gauge("rejoin_bus", "1 for how the bus between nodes is, 0 for how it is not."),
                |family, state| family.size([("state", state.name())], usize::from(state == status)),
            ),
            Family::counter("rejoin_bus_messages_total", "Messages between nodes.")
                .count([("direction", "sent")], counts.sent)
                .count([("direction", "received")], counts.received),
            Family::counter("rejoin_bus_hints_total", "Events that were sent as a hint, since too much waited.")
                .count([], counts.hinted),
            Family::counter(
                "rejoin_bus_dropped_total",
                "Messages between nodes that were left out, since too much waited.",
            )
            .count([], counts.dropped),
            Family::counter("rejoin_bus_gaps_total", "Times that messages of other nodes may have been lost.")
                .count([], counts.gaps),
            Family::counter(
                "rejoin_bus_gaps_repaired_total",
                "Holes in what the bus brought of a log, filled from the store: found by a subscription, or by comparing heads.",
            )
            .count([], self.sources.host.counts().gaps + self.sources.sessions.tally().behind.get()),
        ]
    }

    fn http(&self) -> Family {
        self.requests.read().into_iter().fold(
            Family::counter("rejoin_http_requests_total", "HTTP requests that were answered, by route and status."),
            |family, (route, status, count)| family.count([("route", &route), ("status", &status.to_string())], count),
        )
    }
}
