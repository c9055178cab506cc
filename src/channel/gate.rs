//! The order in which one subscription is shown what is published.
//!
//! Pure: no lock, no I/O, no clock; it knows neither outbox nor channel, only an `emit` that may say no. Its
//! invariant: of a log a client is shown every record exactly once and in order, whatever is published twice, lost,
//! refused by a full outbox, or published while a page of the log is being read.

use std::{cmp::Ordering, collections::VecDeque, sync::Arc};

use crate::pubsub::{Control, Kind, LogId, Published};

/// How many messages are held while a join or a presence snapshot is under way.
const MAX_HELD: usize = 256;
/// How many ends of logs are held while a join is under way; of more, the oldest are not of the log that it reads.
const MAX_ENDINGS: usize = 8;
/// How many bytes of messages.
const MAX_HELD_BYTES: usize = 256 * 1024;

/// Up to where a client holds a log when its join is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The seq of the last record that the client holds.
    pub position: u64,
    /// Whether that was the end of the log; if not, more pages follow at once.
    pub complete: bool,
    /// Which log it is, where the topic may come to have another one.
    pub log: Option<LogId>,
}

/// What the holder of the gate has to do after a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Nothing,
    /// The log is said to reach further: there is something to read, and the client is not to blame.
    Read,
    /// Records are missing before those that came: what brings them has lost some.
    Gap,
    /// There is something to repair, since the client was too slow.
    Repair,
    /// The channel ends; nothing passes any more.
    End(Control),
}

/// What has to be repaired next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Records after this position.
    Page(u64),
    /// To say that this many ephemeral messages were left out.
    Missed(u64),
    /// The whole state of who is there.
    Presence,
}

/// How far a page has brought the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paged {
    /// Live again.
    CaughtUp,
    /// Not yet at the end.
    More,
    /// It brought nothing, and yet there is more.
    Stuck,
}

/// One subscription's gate.
#[derive(Debug)]
pub(super) struct Gate {
    phase: Phase,
    log: Log,
    /// Which log is shown.
    shown: Option<LogId>,
    presence: Presence,
    missed: u64,
}

#[derive(Debug)]
enum Phase {
    /// Left by [`Gate::open`].
    Joining(Held),
    /// Left by a [`Control`] or by [`Gate::close`].
    Open,
    /// Never left.
    Closed,
}

#[derive(Debug, Default)]
struct Held {
    messages: VecDeque<Arc<Published>>,
    bytes: usize,
    /// The last record that was published meanwhile, held or not.
    head: u64,
    /// How far the log was said to reach.
    hint: u64,
    /// Records were published that are not held.
    overflowed: bool,
    /// What may end the channel: which log it shows is not known yet.
    endings: VecDeque<Arc<Published>>,
}

#[derive(Debug)]
enum Log {
    /// This channel has none.
    None,
    /// Everything up to `position` was shown; left for `Lagging` by a gap, an overlap or a full outbox.
    Live { position: u64 },
    /// Records up to `head` are known to exist; left for `Live` by the page that reaches it.
    Lagging { position: u64, head: u64 },
}

#[derive(Debug)]
enum Presence {
    /// Every change was shown; left for `Dirty` by a full outbox.
    Current,
    /// A change was left out, and so are the following; left for `Refreshing` by [`Gate::refresh`].
    Dirty,
    /// The state is being read; changes wait behind it. Left by [`Gate::refreshed`].
    Refreshing(Vec<Arc<Published>>),
}

impl Gate {
    /// A gate that holds everything until the join is answered.
    pub(super) fn new() -> Self {
        let phase = Phase::Joining(Held::default());
        Self { phase, log: Log::None, shown: None, presence: Presence::Current, missed: 0 }
    }

    /// One message from the topic.
    pub(super) fn deliver(
        &mut self,
        message: &Arc<Published>,
        emit: &mut dyn FnMut(&Arc<Published>) -> bool,
    ) -> Effect {
        match &mut self.phase {
            Phase::Closed => Effect::Nothing,
            Phase::Joining(held) => {
                if !held.hold(message) {
                    self.left_out(message.kind);
                }
                Effect::Nothing
            }
            Phase::Open => self.pass(message, emit),
        }
    }

    /// Whoever is behind already does not fall behind once more: it only reads on.
    fn pass(&mut self, message: &Arc<Published>, emit: &mut dyn FnMut(&Arc<Published>) -> bool) -> Effect {
        let is_behind = self.need() != Need::Nothing;
        match self.take(message, emit) {
            Effect::Repair if is_behind => Effect::Read,
            effect => effect,
        }
    }

    fn take(&mut self, message: &Arc<Published>, emit: &mut dyn FnMut(&Arc<Published>) -> bool) -> Effect {
        match message.kind {
            Kind::Logged { first, last } => self.log.pass(first, last, || emit(message)),
            Kind::Head { last } => self.log.learn(last),
            Kind::Presence => self.presence.pass(message, emit),
            Kind::Ephemeral if emit(message) => Effect::Nothing,
            Kind::Ephemeral => {
                self.missed += 1;
                Effect::Repair
            }
            Kind::Control(Control::Deleted(log)) if self.shown != Some(log) => Effect::Nothing,
            Kind::Control(control) => {
                self.phase = Phase::Closed;
                if control != Control::Restart && !message.broadcast.event().is_empty() {
                    emit(message);
                }
                Effect::End(control)
            }
        }
    }

    fn left_out(&mut self, kind: Kind) {
        match kind {
            Kind::Ephemeral => self.missed += 1,
            Kind::Presence => self.presence = Presence::Dirty,
            Kind::Logged { .. } | Kind::Head { .. } | Kind::Control(_) => {}
        }
    }

    /// The join was answered: lets pass what was held. To be called once. Changes of who is there wait for
    /// [`Gate::refreshed`], so that the state that a channel pushes after its join comes before them.
    pub(super) fn open(&mut self, cursor: Option<Cursor>, emit: &mut dyn FnMut(&Arc<Published>) -> bool) -> Effect {
        let Phase::Joining(held) = std::mem::replace(&mut self.phase, Phase::Open) else {
            // Closed meanwhile, and so it stays.
            self.phase = Phase::Closed;
            return Effect::Nothing;
        };
        self.log = match cursor {
            None => Log::None,
            Some(Cursor { position, complete: true, .. }) if !held.overflowed => Log::Live { position },
            Some(Cursor { position, .. }) => Log::Lagging { position, head: held.head },
        };
        self.shown = cursor.and_then(|cursor| cursor.log);
        if matches!(self.presence, Presence::Current) {
            self.refresh();
        }
        let (mut slow, mut gap) = (held.overflowed || self.need() != Need::Nothing, false);
        for message in &held.messages {
            let effect = self.pass(message, emit);
            slow |= effect == Effect::Repair;
            gap |= effect == Effect::Gap;
        }
        self.log.learn(held.hint);
        for ending in &held.endings {
            if let end @ Effect::End(_) = self.pass(ending, emit) {
                return end;
            }
        }
        match self.need() {
            Need::Nothing => Effect::Nothing,
            _ if slow => Effect::Repair,
            _ if gap => Effect::Gap,
            _ => Effect::Read,
        }
    }

    /// Nothing passes any more.
    pub(super) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    /// What to repair next: the log first, since what follows in it has to wait.
    pub(super) fn need(&self) -> Need {
        match (&self.phase, &self.log, &self.presence) {
            (Phase::Joining(_) | Phase::Closed, ..) => Need::Nothing,
            (_, Log::Lagging { position, .. }, _) => Need::Page(*position),
            _ if self.missed > 0 => Need::Missed(self.missed),
            (_, _, Presence::Dirty) => Need::Presence,
            _ => Need::Nothing,
        }
    }

    /// A page of the log up to `last` was shown; `complete` says that it reached the end as it then was. To be called
    /// under the lock under which the page was queued, so that no record slips in between.
    pub(super) fn paged(&mut self, last: u64, complete: bool) -> Paged {
        let Log::Lagging { position, head } = &mut self.log else { return Paged::CaughtUp };
        let progressed = last > *position;
        *position = last.max(*position);
        if complete && *position >= *head {
            self.log = Log::Live { position: *position };
            return Paged::CaughtUp;
        }
        if progressed { Paged::More } else { Paged::Stuck }
    }

    /// The client was told about `count` missed messages.
    pub(super) fn told(&mut self, count: u64) {
        self.missed = self.missed.saturating_sub(count);
    }

    /// The state of who is there is about to be read: changes from now on wait behind it.
    pub(super) fn refresh(&mut self) {
        self.presence = Presence::Refreshing(Vec::new());
    }

    /// That state was shown: lets pass the changes that wait. Clients take a change twice, but not a hole.
    pub(super) fn refreshed(&mut self, emit: &mut dyn FnMut(&Arc<Published>) -> bool) {
        let Presence::Refreshing(held) = &mut self.presence else { return };
        let held = std::mem::take(held);
        self.presence = if held.iter().all(emit) { Presence::Current } else { Presence::Dirty };
    }
}

impl Held {
    /// Whether the message is held, or need not be.
    fn hold(&mut self, message: &Arc<Published>) -> bool {
        match message.kind {
            Kind::Control(_) => {
                if self.endings.len() == MAX_ENDINGS {
                    self.endings.pop_front();
                }
                self.endings.push_back(Arc::clone(message));
                return true;
            }
            Kind::Head { last } => {
                self.hint = self.hint.max(last);
                return true;
            }
            Kind::Logged { last, .. } => self.head = self.head.max(last),
            Kind::Ephemeral | Kind::Presence => {}
        }
        let size = message.broadcast.payload().len();
        let logged = matches!(message.kind, Kind::Logged { .. });
        if logged && self.overflowed {
            return true;
        }
        if self.messages.len() < MAX_HELD && self.bytes + size <= MAX_HELD_BYTES {
            self.bytes += size;
            self.messages.push_back(Arc::clone(message));
            return true;
        }
        if logged {
            self.drop_records();
        }
        logged
    }

    /// All records will be read from the log, so none needs to be held.
    fn drop_records(&mut self) {
        self.overflowed = true;
        self.messages.retain(|held| !matches!(held.kind, Kind::Logged { .. }));
        self.bytes = self.messages.iter().map(|held| held.broadcast.payload().len()).sum();
    }
}

impl Log {
    fn pass(&mut self, first: u64, last: u64, emit: impl FnOnce() -> bool) -> Effect {
        match self {
            Self::None => Effect::Nothing,
            Self::Lagging { head, .. } => {
                *head = last.max(*head);
                Effect::Nothing
            }
            Self::Live { position } if last <= *position => Effect::Nothing,
            Self::Live { position } if first == *position + 1 && emit() => {
                *position = last;
                Effect::Nothing
            }
            Self::Live { position } => {
                let before = *position;
                *self = Self::Lagging { position: before, head: last };
                match first.cmp(&(before + 1)) {
                    Ordering::Less => Effect::Read,
                    Ordering::Equal => Effect::Repair,
                    Ordering::Greater => Effect::Gap,
                }
            }
        }
    }
}

impl Log {
    /// The log is said to reach at least `last`.
    fn learn(&mut self, last: u64) -> Effect {
        match self {
            Self::None => Effect::Nothing,
            Self::Lagging { head, .. } => {
                *head = last.max(*head);
                Effect::Nothing
            }
            Self::Live { position } if last <= *position => Effect::Nothing,
            Self::Live { position } => {
                *self = Self::Lagging { position: *position, head: last };
                Effect::Read
            }
        }
    }
}

impl Presence {
    fn pass(&mut self, message: &Arc<Published>, emit: &mut dyn FnMut(&Arc<Published>) -> bool) -> Effect {
        match self {
            Self::Current if emit(message) => return Effect::Nothing,
            Self::Refreshing(held) if held.len() < MAX_HELD => {
                held.push(Arc::clone(message));
                return Effect::Nothing;
            }
            Self::Dirty => return Effect::Nothing,
            Self::Current | Self::Refreshing(_) => {}
        }
        *self = Self::Dirty;
        Effect::Repair
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
