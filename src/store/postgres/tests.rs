//! The suites that every store passes, on a database of its own for each case, as an ordinary role; directly, and some of
//! them through a proxy that lends a server for a transaction.

mod failures;
mod intruder;
mod nodes;
mod refusals;

use std::{any::Any, sync::OnceLock};

use super::*;
use crate::store::conformance::{exercise, locks::exercise_locks};

#[path = "../../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod server;
#[path = "../../../tests/it/support/tcp_proxy.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod tcp_proxy;

type Keep = Box<dyn Any + Send + Sync>;

/// The address of a new database.
async fn new_database() -> String {
    let server = server::server();
    server.url(server::OWNER, &server.database().await)
}

async fn open() -> (Arc<dyn Store>, Keep) {
    let store = Postgres::open(&new_database().await, &Options::default()).await.unwrap();
    (Arc::new(store), Box::new(()))
}

mod direct {
    use super::*;

    exercise!(open());
}

mod held {
    use super::*;

    async fn open_with_intruder() -> (Arc<dyn Store>, Keep, Box<dyn crate::store::conformance::locks::Intruder>) {
        let server = server::server();
        let database = server.database().await;
        // Long enough for whoever is slow to be seen waiting.
        let options =
            Options { lock_limit: Duration::from_secs(20), patience: Duration::from_secs(30), ..Options::default() };
        let store = Postgres::open(&server.url(server::OWNER, &database), &options).await.unwrap();
        (Arc::new(store), Box::new(()), Box::new(intruder::Other::on(&database).await))
    }

    exercise_locks!(open_with_intruder());
}

mod pooled {
    use super::*;

    async fn open_pooled() -> (Arc<dyn Store>, Keep) {
        // One for all cases; the runtime of the first that needs it may end before the others do, the process not.
        static POOLER: OnceLock<server::Pooler> = OnceLock::new();
        let server = server::server();
        let database = server.database().await;
        let port = POOLER.get_or_init(|| server.pooler()).port();
        let url = server.tcp_url(port, &database);
        let options = Options { transaction_pooling: true, ..Options::default() };
        (Arc::new(Postgres::open(&url, &options).await.unwrap()), Box::new(()))
    }

    exercise! { open_pooled();
        log:
            l1_seqs_are_gapless_and_in_order_in_batches_of_many_sessions,
            l1_concurrent_commits_give_every_seq_once,
            l3_a_refused_item_changes_nothing_and_fails_nobody,
            l3_items_of_one_session_see_those_before_them,
            l3_nothing_of_a_turn_follows_its_terminal_event,
            l4_what_is_written_again_is_there_once,
            l4_a_flush_that_the_store_never_saw_the_one_before_of_says_so,
            i7_a_stale_owner_or_term_changes_nothing,
            i16_one_id_in_many_commits_at_once_makes_one_message;
        turns:
            t1_a_turn_runs_at_once_where_a_slot_is_free_and_nobody_waits,
            t1_only_a_live_node_takes_turns,
            t2_the_head_of_the_queue_starts_where_a_slot_is_free,
            t2_the_transaction_that_frees_a_slot_starts_the_head,
            t3_t4_the_owner_appends_and_ends,
            t5_the_first_intent_stays_and_the_owner_is_told,
            t6_an_intent_is_carried_out_by_the_owner_or_under_the_same_term,
            t7_only_a_dead_owners_turn_is_ended_and_keeps_what_it_said,
            t7_an_intent_gives_its_own_reason,
            t8_a_draining_owner_ends_what_it_still_owns,
            t9_a_waiting_turn_is_cancelled_and_the_queue_closes_up,
            i8_never_more_than_max_running_run,
            i9_of_a_complete_a_cancel_and_a_force_exactly_one_wins,
            i10_a_thousand_reconciles_make_one_end,
            i13_the_queue_survives_its_node_and_runs_in_order_once;
        nodes:
            i2_a_node_never_goes_back,
            a_tombstone_compares_the_beat,
            a_renewal_reads_every_node_and_this_nodes_turns;
    }
}
