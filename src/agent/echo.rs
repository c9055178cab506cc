//! The agent that repeats the prompt, word by word: for demonstrations, tests and load.
//!
//! It knows nothing but the last message. Its invariant: the texts of its deltas, put together, are exactly
//! `You said: ` and the prompt's plain text. Word `n` is due `n` delays after the start, so timer inaccuracy never
//! adds up; an answer costs one timer and one copy of its text.

use std::{pin::Pin, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::time::{Instant, Sleep};

use super::{Agent, Answer, Context, Delta, Output};
use crate::model::{PartKind, TurnError, message::plain_text};

const LEAD: &str = "You said: ";

/// Repeats the prompt.
#[derive(Debug, Clone)]
pub struct Echo {
    delay: Duration,
}

impl Echo {
    /// An echo that pauses for `delay` before each word; zero for none.
    pub fn new(delay: Duration) -> Self {
        Self { delay }
    }
}

#[async_trait]
impl Agent for Echo {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let mut text = String::from(LEAD);
        if let Some(prompt) = context.messages.last() {
            text.push_str(&plain_text(&prompt.parts));
        }
        let speech = Speech { text, said: 0, pace: Pace::new(self.delay) };
        Ok(stream::unfold(Some(speech), |speech| async move {
            let mut speech = speech?;
            match speech.next_word().await {
                Some(output) => Some((Ok(output), Some(speech))),
                None => Some((Ok(Output::Done { usage: None }), None)),
            }
        })
        .boxed())
    }

    fn max_messages(&self) -> usize {
        1
    }
}

/// An answer that is being given.
struct Speech {
    text: String,
    said: usize,
    pace: Pace,
}

impl Speech {
    async fn next_word(&mut self) -> Option<Output> {
        let rest = &self.text[self.said..];
        if rest.is_empty() {
            return None;
        }
        let word = &rest[..word_length(rest)];
        self.pace.wait().await;
        self.said += word.len();
        Some(Output::Delta(Delta { part: 0, kind: PartKind::Text, text: Some(word.to_owned()), value: None }))
    }
}

/// The bytes of the first word of `text` and of the white space around it, up to the next word.
fn word_length(text: &str) -> usize {
    let mut in_word = false;
    for (at, char) in text.char_indices() {
        if !char.is_whitespace() {
            if in_word && text[..at].ends_with(char::is_whitespace) {
                return at;
            }
            in_word = true;
        }
    }
    text.len()
}

/// Deadlines at equal distances.
struct Pace {
    delay: Duration,
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Pace {
    fn new(delay: Duration) -> Self {
        let due = Instant::now() + delay;
        let timer = (!delay.is_zero()).then(|| (due, Box::pin(tokio::time::sleep_until(due))));
        Self { delay, timer }
    }

    async fn wait(&mut self) {
        match &mut self.timer {
            Some((due, timer)) => {
                timer.as_mut().await;
                *due += self.delay;
                timer.as_mut().reset(*due);
            }
            // Without a pause the stream is always ready; others on this thread must get their turn all the same.
            None => tokio::task::consume_budget().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::testing::{self, person},
        model::Role,
    };

    fn context(prompt: &str) -> Context {
        testing::context(vec![testing::message(Role::User, Some(person("u1")), prompt)])
    }

    /// The words of an answer with the time at which each came, and the time of its end.
    async fn listen(prompt: &str, delay: Duration) -> (Vec<(String, Duration)>, Duration) {
        let start = Instant::now();
        let mut answer = Echo::new(delay).answer(context(prompt)).await.unwrap();
        let mut words = Vec::new();
        while let Some(output) = answer.next().await {
            match output.unwrap() {
                Output::Delta(delta) => {
                    assert_eq!((delta.part, delta.kind, delta.value.is_none()), (0, PartKind::Text, true));
                    words.push((delta.text.unwrap(), start.elapsed()));
                }
                Output::Done { usage } => {
                    assert!(usage.is_none());
                    return (words, start.elapsed());
                }
            }
        }
        panic!("the answer has no end");
    }

    #[tokio::test]
    async fn the_text_is_exactly_the_lead_and_the_prompt() {
        for prompt in ["hi", "", "  two  words \n", "\t", "naïve café 🎉 ok", "a\u{a0}b\u{3000}c"] {
            let (words, _) = listen(prompt, Duration::ZERO).await;
            let text: String = words.iter().map(|(word, _)| word.as_str()).collect();
            assert_eq!(text, format!("You said: {prompt}"), "{prompt:?}");
            assert!(words.iter().all(|(word, _)| word.split_whitespace().count() == 1), "{words:?}");
        }
    }

    #[tokio::test]
    async fn each_word_comes_one_delay_after_the_one_before() {
        let delay = Duration::from_millis(30);
        let (words, end) = listen("one two  three", delay).await;
        let expected = ["You ", "said: ", "one ", "two  ", "three"];
        assert_eq!(words.len(), expected.len());
        for (n, ((word, at), expected)) in (1u32..).zip(words.iter().zip(expected)) {
            assert_eq!(word, expected);
            assert!(*at >= delay * n, "{word:?} at {at:?}");
        }
        assert!(end >= delay * 5, "{end:?}");
    }

    #[tokio::test]
    async fn word_n_is_due_n_delays_after_the_start_however_late_the_one_before_was() {
        let delay = Duration::from_millis(100);
        let start = Instant::now();
        let mut answer = Echo::new(delay).answer(context("a b c d e f")).await.unwrap();
        // The reader comes late: three words are due by then and are not paused for again.
        tokio::time::sleep_until(start + delay * 3).await;
        let mut pieces = 0;
        while let Some(Ok(Output::Delta(_))) = answer.next().await {
            pieces += 1;
        }
        let took = start.elapsed();
        assert_eq!(pieces, 8);
        assert!(took >= delay * 8, "{took:?}");
        assert!(took < delay * 10, "the delay of the reader was added to that of the words: {took:?}");
    }
}
