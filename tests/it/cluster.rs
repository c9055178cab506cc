//! Several real servers on one Postgres, and what must hold whatever happens to them: every accepted turn ends once,
//! only turns whose owner is gone are ended for it, and a client that was there throughout holds what the log says.

mod admin;
mod bus;
mod clocks;
mod commits;
mod death;
mod deletion;
mod ends;
mod event_stream;
mod frozen;
mod history;
mod joins;
mod live_list;
mod measures;
mod operators;
mod oracle;
mod outage;
mod people;
mod promotion;
mod refusals;
mod storm;
mod versions;
