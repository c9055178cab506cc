//! Published keys as a login serves them: in time, too late, changed, broken, and under names that others use too.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::super::{Options, Presented, Refused, Source, Verifier, keeper::Pace};
use crate::clock;

/// How long anything may take here.
const LIMIT: Duration = Duration::from_secs(10);

/// Times for tests: keys are read again only when that is asked for.
fn pace() -> Pace {
    Pace { pause: Duration::ZERO, again: Duration::from_secs(600), ..Pace::default() }
}

/// Somebody who signs, under a name that anybody may use.
struct Login {
    id: &'static str,
    pair: Ed25519KeyPair,
}

impl Login {
    fn new(id: &'static str) -> Self {
        Self { id, pair: Ed25519KeyPair::generate().unwrap() }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": BASE64URL.encode(self.pair.public_key())})
    }

    fn token(&self) -> String {
        self.token_with(&json!({"alg": "EdDSA", "kid": self.id}), &json!({}))
    }

    fn token_with(&self, header: &Value, more: &Value) -> String {
        let mut claims = json!({"sub": "u1", "exp": clock::now().0 / 1_000 + 600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = |part: &Value| BASE64URL.encode(part.to_string());
        let signed = format!("{}.{}", text(header), text(&claims));
        format!("{signed}.{}", BASE64URL.encode(self.pair.sign(signed.as_bytes())))
    }
}

/// A place that answers every request with the same text, which may be changed, and counts them.
#[derive(Clone)]
struct Place {
    url: String,
    answer: Arc<Mutex<String>>,
    delay: Arc<Mutex<Duration>>,
    asked: Arc<AtomicUsize>,
}

impl Place {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let place = Self { url, answer: Arc::default(), delay: Arc::default(), asked: Arc::default() };
        let own = place.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                own.asked.fetch_add(1, Ordering::SeqCst);
                let (answer, delay) = (own.answer.lock().unwrap().clone(), *own.delay.lock().unwrap());
                tokio::spawn(async move {
                    let mut request = [0; 4_096];
                    let _ = stream.read(&mut request).await;
                    tokio::time::sleep(delay).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        place
    }

    /// A place with the keys of these.
    async fn with(logins: &[&Login]) -> Self {
        let place = Self::open().await;
        place.serve(logins);
        place
    }

    fn serve(&self, logins: &[&Login]) {
        let keys: Vec<Value> = logins.iter().map(|login| login.jwk()).collect();
        self.say("200 OK", "", &json!({"keys": keys}).to_string());
    }

    fn say(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
        *self.answer.lock().unwrap() = head + body;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A verifier of tokens whose keys are here, once it has read them or tried to.
    async fn verifier(&self, pace: Pace) -> Verifier {
        let options = Options { keys: Some(Source::Url(self.url.parse().unwrap())), ..Options::default() };
        // The task that reads keys ends with the test's runtime.
        let (verifier, _keeper) = Verifier::start_at(options, pace);
        let tried = async {
            while self.asked() == 0 || verifier.problem().is_some_and(|p| p.contains("being")) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LIMIT, tried).await.unwrap();
        verifier
    }
}

async fn outcome(verifier: &Verifier, token: &str) -> Result<String, Refused> {
    let presented = Presented { token: Some(token), ..Presented::default() };
    let identity = timeout(LIMIT, verifier.identify(presented)).await.unwrap();
    identity.map(|identity| identity.person.id)
}

#[tokio::test]
async fn cve_2026_32301_no_address_that_a_token_names_is_ever_asked() {
    let (login, stranger, trap) = (Login::new("k1"), Login::new("k2"), Place::open().await);
    trap.serve(&[&stranger]);
    let place = Place::with(&[&login]).await;
    let verifier = place.verifier(pace()).await;
    for header in [
        json!({"alg": "EdDSA", "kid": "k2", "jku": trap.url}),
        json!({"alg": "EdDSA", "kid": "k2", "x5u": trap.url}),
        json!({"alg": "EdDSA", "kid": trap.url}),
        json!({"alg": "EdDSA", "kid": "../../keys", "jku": trap.url, "jwk": stranger.jwk()}),
        json!({"alg": "EdDSA", "kid": "{{iss}}"}),
    ] {
        let claims = json!({"iss": trap.url, "aud": trap.url, "jku": trap.url, "tenant": trap.url});
        let refused = outcome(&verifier, &stranger.token_with(&header, &claims)).await.unwrap_err();
        assert_eq!(refused, Refused::UnknownKey, "{header}");
    }
    assert!(place.asked() > 1, "an unknown id has the one place read again");
    place.say("302 Found", &format!("location: {}\r\n", trap.url), "");
    assert_eq!(outcome(&verifier, &stranger.token()).await, Err(Refused::NoKeys));
    assert_eq!(trap.asked(), 0, "nobody went where a token or a redirect led");
    assert_eq!(outcome(&verifier, &login.token()).await, Ok("u1".to_owned()));
}

#[tokio::test]
async fn cve_2026_49998_a_key_never_checks_the_tokens_of_another_issuer_that_uses_the_same_id() {
    let (one, two) = (Login::new("default"), Login::new("default"));
    let (place_one, place_two) = (Place::with(&[&one]).await, Place::with(&[&two]).await);
    let (of_one, of_two) = (place_one.verifier(pace()).await, place_two.verifier(pace()).await);
    for _ in 0..2 {
        // The second time everything that could be kept is kept.
        assert_eq!(outcome(&of_one, &one.token()).await, Ok("u1".to_owned()));
        assert_eq!(outcome(&of_two, &two.token()).await, Ok("u1".to_owned()));
        assert_eq!(outcome(&of_one, &two.token()).await, Err(Refused::Signature));
        assert_eq!(outcome(&of_two, &one.token()).await, Err(Refused::Signature));
    }
}

#[tokio::test]
async fn a_key_that_is_published_later_is_found_by_its_id_and_a_withdrawn_one_is_not() {
    let (old, new) = (Login::new("k1"), Login::new("k2"));
    let place = Place::with(&[&old]).await;
    let verifier = place.verifier(pace()).await;
    assert_eq!(outcome(&verifier, &new.token()).await, Err(Refused::UnknownKey));
    place.serve(&[&old, &new]);
    assert_eq!(outcome(&verifier, &new.token()).await, Ok("u1".to_owned()));
    let asked = place.asked();
    assert_eq!(outcome(&verifier, &old.token()).await, Ok("u1".to_owned()));
    assert_eq!(place.asked(), asked, "what is held is not asked for");
    place.serve(&[&new]);
    assert_eq!(outcome(&verifier, &Login::new("k3").token()).await, Err(Refused::UnknownKey));
    assert_eq!(outcome(&verifier, &old.token()).await, Err(Refused::UnknownKey), "the set is replaced as a whole");
}

#[tokio::test]
async fn made_up_ids_cost_one_reading_at_a_time_and_none_for_a_while_after() {
    let place = Place::with(&[&Login::new("k1")]).await;
    let verifier = place.verifier(pace()).await;
    *place.delay.lock().unwrap() = Duration::from_millis(200);
    let token = Login::new("k2").token();
    let before = place.asked();
    let all = futures::future::join_all((0..50).map(|_| outcome(&verifier, &token))).await;
    assert!(all.iter().all(|outcome| *outcome == Err(Refused::UnknownKey)));
    assert_eq!(place.asked(), before + 1, "fifty tokens waited for one reading");

    let place = Place::with(&[&Login::new("k1")]).await;
    let verifier = place.verifier(Pace { pause: Duration::from_secs(600), ..pace() }).await;
    for _ in 0..20 {
        assert_eq!(outcome(&verifier, &token).await, Err(Refused::UnknownKey));
    }
    assert_eq!(place.asked(), 1, "it was read a moment ago");
}

#[tokio::test]
async fn a_token_does_not_wait_for_a_place_that_hangs() {
    let place = Place::with(&[&Login::new("k1")]).await;
    let verifier = place.verifier(Pace { patience: Duration::from_millis(50), ..pace() }).await;
    *place.delay.lock().unwrap() = 2 * LIMIT;
    assert_eq!(outcome(&verifier, &Login::new("k2").token()).await, Err(Refused::NoKeys));
}

#[tokio::test]
async fn keys_stay_while_their_place_is_broken() {
    let login = Login::new("k1");
    let place = Place::with(&[&login]).await;
    let verifier = place.verifier(pace()).await;
    let huge = format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(300 * 1024));
    for (status, body) in [("500 Oh No", ""), ("200 OK", "<html>"), ("200 OK", "{\"keys\":[]}"), ("200 OK", &huge)] {
        place.say(status, "", body);
        // Its key may be one that was published a moment ago.
        assert_eq!(outcome(&verifier, &Login::new("k2").token()).await, Err(Refused::NoKeys));
        assert_eq!(outcome(&verifier, &login.token()).await, Ok("u1".to_owned()), "{status} {}", body.len());
        assert_eq!(verifier.problem(), None);
    }
}

#[tokio::test]
async fn keys_that_nobody_publishes_any_more_are_used_no_longer_than_they_are_good() {
    let login = Login::new("k1");
    let place = Place::with(&[&login]).await;
    let verifier = place.verifier(Pace { kept: Duration::from_millis(300), ..pace() }).await;
    assert_eq!(outcome(&verifier, &login.token()).await, Ok("u1".to_owned()));
    place.say("500 Oh No", "", "");
    let used_up = async { while outcome(&verifier, &login.token()).await != Err(Refused::NoKeys) {} };
    timeout(LIMIT, used_up).await.unwrap();
    assert!(verifier.problem().unwrap().contains("it answers 500"), "{:?}", verifier.problem());
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_until_they_can_be_read() {
    let (place, login) = (Place::open().await, Login::new("k1"));
    place.say("503 Later", "", "");
    let verifier = place.verifier(Pace { again: Duration::from_millis(20), ..pace() }).await;
    assert!(verifier.problem().unwrap().ends_with("/keys: it answers 503"), "{:?}", verifier.problem());
    assert_eq!(outcome(&verifier, &login.token()).await, Err(Refused::NoKeys));
    place.serve(&[&login]);
    assert!(verifier.ready_within(LIMIT).await, "it is tried again without being asked for");
    assert_eq!((outcome(&verifier, &login.token()).await, verifier.problem()), (Ok("u1".to_owned()), None));
}

#[tokio::test]
async fn a_file_is_read_again_as_an_address_is() {
    let (old, new, folder) = (Login::new("k1"), Login::new("k2"), tempfile::tempdir().unwrap());
    let path = folder.path().join("keys.json");
    let write = |login: &Login| std::fs::write(&path, json!({"keys": [login.jwk()]}).to_string()).unwrap();
    write(&old);
    let options = Options { keys: Some(Source::File(path.clone())), ..Options::default() };
    let (verifier, keeper) = Verifier::start_at(options, pace());
    assert!(verifier.ready_within(LIMIT).await);
    assert_eq!(outcome(&verifier, &old.token()).await, Ok("u1".to_owned()));
    write(&new);
    assert_eq!(outcome(&verifier, &new.token()).await, Ok("u1".to_owned()));
    timeout(LIMIT, keeper.unwrap().stop()).await.unwrap();
}
