//! The echo agent under load.

use std::time::{Duration, Instant};

use futures::{StreamExt, future::join_all};
use rejoin::agent::{Agent, Echo, Output};

use crate::support::upstream::context;

/// The text of an answer and how long it took.
async fn listen(agent: Echo, prompt: String) -> (String, Duration) {
    let start = Instant::now();
    let mut text = String::new();
    let mut answer = agent.answer(context(&prompt)).await.unwrap();
    while let Some(output) = answer.next().await {
        match output.unwrap() {
            Output::Delta(delta) => text.push_str(&delta.text.unwrap()),
            Output::Done { .. } => return (text, start.elapsed()),
        }
    }
    panic!("the answer has no end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_answers_at_once_keep_their_pace_and_their_words() {
    let delay = Duration::from_millis(20);
    let agent = Echo::new(delay);
    let prompts: Vec<_> = (0..1_000).map(|n| format!("{n}{}", " word".repeat(47))).collect();
    let answers = join_all(prompts.iter().map(|prompt| tokio::spawn(listen(agent.clone(), prompt.clone())))).await;
    // One after another they would take a quarter of an hour.
    let (least, most) = (delay * 50, delay * 50 * 4);
    for (answer, prompt) in answers.into_iter().zip(prompts) {
        let (text, took) = answer.unwrap();
        assert_eq!(text, format!("You said: {prompt}"));
        assert!(took >= least && took < most, "50 words took {took:?}");
    }
}
