//! Several real servers on one Postgres, and what must hold whatever happens to them: every accepted turn ends once,
//! only turns whose owner is gone are ended for it, and a client that was there throughout holds what the log says.

mod death;
mod ends;
mod frozen;
mod joins;
mod outage;
mod people;
