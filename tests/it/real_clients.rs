//! Phoenix clients that others wrote, unchanged and in the versions that people have, on the real server.
//!
//! The programs are in `tests/clients`. `tests/run` installs what they need and runs these tests; plain `cargo test`
//! leaves them out, so that nobody needs npm or Python to work on the server. What each client did is in the table of
//! `protocol/PROTOCOL.md`.

mod evening;
mod everyone;
pub(crate) mod foreign;
mod long_poll;
mod phoenix_js;
mod presence;
mod program;
mod services;
