//! The parts that do no I/O, each alone: the fold, the state machine, the encoding of a broadcast, and what hands it to
//! the readers of a topic.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "a program of its own")]

use std::{hint::black_box, sync::Arc};

use async_trait::async_trait;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rejoin::{
    auth::Identity,
    channel::{Cell, Channel, Connection, Context, Host, Joined, Next, Options, Outbox, OutboxNext, Refusal, Router},
    clock::Timestamp,
    ids::Incarnation,
    model::{
        EventKind, Node, NodeState, Owner, Part, PartKind, Person,
        event::{self, Data},
        fold::{self, Delta},
        machine::{self, Asker, DeltaEvent, Fence, NewTurn, Op, Session, WhenBusy, World, Writes},
    },
    protocol::{Broadcast, Payload, Ref, Serializer},
    pubsub::{Kind, PubSub, Published},
    telemetry::trace::Trace,
};

const NOW: Timestamp = Timestamp(1_795_341_600_000);
/// Deltas of an answer of 100 KB, as a model streams it.
const DELTAS: usize = 4_000;
const WORD: &str = "twenty-five bytes of text";
/// Connections on the topic that is delivered to.
const READERS: usize = 100;

fn delta() -> Delta {
    Delta { part: 0, kind: PartKind::Text, text: Some(WORD.to_owned()), value: None }
}

fn folding(criterion: &mut Criterion) {
    let deltas = vec![delta(); DELTAS];
    let mut group = criterion.benchmark_group("fold");
    group.throughput(Throughput::Bytes((DELTAS * WORD.len()) as u64));
    group.bench_function("answer_of_100_kb", |bencher| {
        bencher.iter(|| {
            let mut parts: Vec<Part> = Vec::new();
            deltas.iter().for_each(|delta| fold::apply(&mut parts, black_box(delta)));
            parts
        });
    });
    group.finish();
}

fn owner() -> Owner {
    Owner { node: "a".to_owned(), incarnation: Incarnation("a".to_owned()) }
}

/// A session with one running turn, and the nodes that there are.
fn running() -> (Session, Vec<Node>) {
    let nodes = vec![Node {
        owner: owner(),
        state: NodeState::Live,
        beat: 1,
        lease_ttl_ms: 6_000,
        exclusive: false,
        connections: 0,
    }];
    let create = Op::Create { epoch: "e".into(), title: None, metadata: None, max_running: None, must_be_new: true };
    let mut session = machine::create(&Arc::from("s"), &create, NOW).unwrap();
    let send = Op::Send {
        message_id: "m".to_owned(),
        parts: vec![Part::text("hello")],
        turn: Some(NewTurn { id: "turn".into(), reply_id: "reply".into(), agent: "echo".into() }),
        when_busy: WhenBusy::Queue,
        max_queue: 1,
        asker: Asker { person: Person { id: "u".into(), name: "u".into() }, admin: false },
    };
    let world = World { nodes: &nodes, now: NOW };
    machine::apply(&mut session, world, Some(&owner()), &send, &mut Writes::default()).unwrap();
    (session, nodes)
}

fn delta_event() -> DeltaEvent {
    let delta = delta();
    let body = event::body(EventKind::TurnDelta, NOW, None, Some("turn"), &Data::Delta(&delta));
    DeltaEvent { delta, body }
}

/// What the store does with each flush of a runner, but for loading and writing.
fn appending(criterion: &mut Criterion) {
    let (session, nodes) = running();
    let term = session.turns[0].term;
    let fence = Fence { turn_id: "turn".into(), incarnation: owner().incarnation, term, flush: 0 };
    let append = Op::Append { fence, deltas: vec![delta_event()], chunk: None };
    criterion.bench_function("machine/append", |bencher| {
        bencher.iter_batched_ref(
            || (session.clone(), Writes::default()),
            |(session, writes)| {
                let world = World { nodes: &nodes, now: NOW };
                machine::apply(session, world, Some(&owner()), black_box(&append), writes).unwrap()
            },
            BatchSize::SmallInput,
        );
    });
}

/// From an event's body to the bytes that all readers share.
fn encoding(criterion: &mut Criterion) {
    let body = delta_event().body;
    criterion.bench_function("broadcast/events", |bencher| {
        bencher.iter(|| {
            let mut text = String::from("{\"prev\":57,\"events\":[");
            event::write_event(&mut text, 58, black_box(&body));
            text.push_str("]}");
            Broadcast::new("session:s", "events", Payload::raw(text)).encoded(Serializer::V2).unwrap()
        });
    });
}

struct Quiet;

#[async_trait]
impl Channel for Quiet {
    async fn join(&mut self, _: &mut Context, _: Payload) -> Result<Joined, Refusal> {
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, _: &mut Context, _: &str, _: Payload) -> Next {
        Next::NoReply
    }
}

/// Joins a topic and takes the answer out of the way.
async fn reader(host: &Host, name: &Arc<str>) -> (Outbox, Arc<Cell>) {
    let outbox = Outbox::new(1 << 20);
    let identity = Identity::open(Some("u"), None).unwrap();
    let connection = Arc::new(Connection::new(Serializer::V2, outbox.clone(), identity, 1 << 20));
    let refs = (Ref::from_json("1"), Ref::from_json("1"));
    let cell = Cell::join(host, &connection, name, refs, (Payload::empty(), Trace::default()), None).unwrap();
    outbox.ready().await;
    assert!(matches!(outbox.next(), OutboxNext::Write(_)));
    (outbox, cell)
}

/// One broadcast through topic, gates and outboxes, and out of these again.
fn delivering(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (pubsub, name) = (PubSub::new(), Arc::<str>::from("quiet:1"));
    let readers = runtime.block_on(async {
        let router = Router::new().route("quiet:*", || Box::new(Quiet));
        let host = Host::new(router, pubsub.clone(), Options::default());
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(reader(&host, &name).await);
        }
        // Whoever was answered is still greeted; once that has run, everything passes at once.
        while host.counts().channels < READERS as u64 {
            tokio::task::yield_now().await;
        }
        readers
    });
    let mut group = criterion.benchmark_group("deliver");
    group.throughput(Throughput::Elements(READERS as u64));
    group.bench_function("topic_of_100", |bencher| {
        bencher.iter(|| {
            let broadcast = Broadcast::new(Arc::clone(&name), "said", Payload::empty());
            let message = Published { kind: Kind::Ephemeral, from: None, broadcast };
            assert_eq!(pubsub.publish(&name, message), READERS);
            for (outbox, _) in &readers {
                assert!(matches!(outbox.next(), OutboxNext::Write(_)));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, folding, appending, encoding, delivering);
criterion_main!(benches);
