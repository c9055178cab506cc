//! Answers that take long: they are awaited beside the channel, so that the next push does not wait for them.

use tokio::time;
use tokio_util::task::TaskTracker;

use crate::{
    channel::{Context, Next},
    protocol::{Payload, Reply},
    session::Error,
};

/// The reply that an answer makes.
pub(super) fn reply<T: serde::Serialize>(answer: Result<T, Error>) -> Reply {
    match answer {
        Ok(answer) => Reply::ok(Payload::json(&answer)),
        Err(error) => Reply::refuse(error.reason(), &error.to_string()),
    }
}

/// The answer comes when it is there, at latest by the push's deadline. `tasks` keeps it until then.
pub(super) fn answer_later<T, F>(tasks: &TaskTracker, cx: &Context, answer: F) -> Next
where
    T: serde::Serialize + Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let (handle, deadline) = (cx.reply_later(), cx.deadline());
    let answer = cx.trace().run(answer);
    tasks.spawn(async move {
        let answer = time::timeout_at(deadline, Box::pin(answer)).await;
        handle.send(&reply(answer.unwrap_or(Err(Error::Unavailable))));
    });
    Next::NoReply
}
