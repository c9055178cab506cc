//! What must be true of a cluster when it has come to rest, asked of its database and of what its clients hold.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    client::SessionClient,
    fleet::{Fleet, Sql},
    recorder::Recorder,
};

/// What writes down every life of a node and every change of a turn, beside the server's own tables.
const AUDIT: &str = "
CREATE SCHEMA audit;
CREATE TABLE audit.changes (id bigserial, what text, name text, was text, became text);
CREATE FUNCTION audit.node() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM public.turns WHERE owner = OLD.incarnation AND status = 'running') OR OLD.state <> 'dead'
        THEN INSERT INTO audit.changes (what, name, was, became) VALUES ('node', OLD.incarnation, OLD.state, 'gone');
        END IF;
    ELSIF OLD.state <> NEW.state
        AND (OLD.state, NEW.state) NOT IN (('live', 'draining'), ('live', 'dead'), ('draining', 'dead'))
    THEN INSERT INTO audit.changes (what, name, was, became) VALUES ('node', OLD.incarnation, OLD.state, NEW.state);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION audit.turn() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF OLD.status IN ('completed', 'failed', 'cancelled') AND NEW.status <> OLD.status
        OR NEW.term < OLD.term
        OR NEW.owner IS DISTINCT FROM OLD.owner AND NEW.status = 'running' AND NEW.term = OLD.term
    THEN INSERT INTO audit.changes (what, name, was, became)
        VALUES ('turn', OLD.id, OLD.status || ' ' || OLD.term, NEW.status || ' ' || NEW.term);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE OR DELETE ON public.nodes FOR EACH ROW EXECUTE FUNCTION audit.node();
CREATE TRIGGER audit AFTER UPDATE ON public.turns FOR EACH ROW EXECUTE FUNCTION audit.turn();
GRANT USAGE ON SCHEMA audit TO PUBLIC;";

/// Rows that each of these finds are violations.
pub(crate) const LAWS: [(&str, &str); 7] = [
    (
        "L1: seqs are 1 to the head, without a hole",
        "SELECT s.id || ': ' || count(e.seq) || ' to ' || coalesce(max(e.seq), 0) || ', head ' || s.last_seq
         FROM sessions s LEFT JOIN events e ON e.session_key = s.key GROUP BY s.key
         HAVING count(e.seq) <> s.last_seq OR coalesce(max(e.seq), 0) <> s.last_seq OR coalesce(min(e.seq), 1) <> 1",
    ),
    (
        "I2: a node's life goes one way, a turn's end is final, a change of owner raises the term",
        "SELECT what || ' ' || name || ': ' || was || ' to ' || became FROM audit.changes",
    ),
    ("I6: an owner exactly while running", "SELECT id FROM turns WHERE (owner IS NOT NULL) <> (status = 'running')"),
    (
        "I9: one terminal event for each turn, and it says what the turn says",
        "SELECT t.id || ' ' || t.status || ' ' || count(e.seq) FROM turns t LEFT JOIN events e
         ON e.session_key = t.session_key AND e.turn_id = t.id
         AND e.kind IN ('turn_completed', 'turn_failed', 'turn_cancelled') GROUP BY t.id
         HAVING count(e.seq) <> (t.status IN ('completed', 'failed', 'cancelled'))::int
         OR max(e.kind) <> 'turn_' || t.status",
    ),
    (
        "L3: nothing of a turn follows its end",
        "SELECT late.turn_id || ' ' || late.kind || ' ' || late.seq FROM events late JOIN events e
         ON e.session_key = late.session_key AND e.turn_id = late.turn_id AND e.seq < late.seq
         WHERE e.kind IN ('turn_completed', 'turn_failed', 'turn_cancelled')",
    ),
    (
        "I9: every prompt that asked for an answer has a turn, and none has two that were not asked for",
        "SELECT t.prompt_id || ' ' || count(*) FROM turns t GROUP BY t.session_key, t.prompt_id
         HAVING count(*) <> max(t.attempt)",
    ),
    (
        "I11: no turn of a dead node runs",
        "SELECT t.id FROM turns t LEFT JOIN nodes n ON n.incarnation = t.owner
         WHERE t.status = 'running' AND coalesce(n.state, 'dead') = 'dead'",
    ),
];

impl Fleet {
    /// From now on the database writes down what must never happen.
    pub(crate) async fn audit(&self) {
        self.sql().await.run(AUDIT).await;
    }

    /// Waits until no turn waits or runs, then checks everything.
    pub(crate) async fn check(&self, recorders: &[&Recorder]) {
        let mut sql = self.sql().await;
        sql.until("turns to end", "SELECT count(*) FROM turns WHERE status IN ('queued', 'running')", 0).await;
        assert_eq!(violations(&mut sql).await, Vec::new());
        for recorder in recorders {
            self.compare(&mut sql, recorder).await;
        }
    }

    /// A client that was there throughout holds what a new one is shown.
    async fn compare(&self, sql: &mut Sql, recorder: &Recorder) {
        let head = format!("SELECT last_seq FROM sessions WHERE id = '{}'", recorder.session);
        let head = u64::try_from(sql.number(head).await).unwrap();
        recorder.until("the last event", |record| record.view.last_seq >= head).await;
        let node = (0..self.nodes.len()).find(|node| self.runs(*node)).expect("a node runs");
        let window = SessionClient::join(&self.ws(node, "oracle"), &recorder.session).await;
        let record = recorder.now();
        assert_eq!(record.problems, Vec::<String>::new(), "{}", recorder.name());
        assert_eq!((record.view.last_seq, &record.view.epoch), (window.view.last_seq, &window.view.epoch));
        let (held, shown) = (&record.view.messages, &window.view.messages);
        assert!(held.len() >= shown.len(), "{}: holds {}, not {}", recorder.name(), held.len(), shown.len());
        for (held, shown) in held[held.len() - shown.len()..].iter().zip(shown) {
            assert_eq!(held, shown, "{}: the fold is the server's", recorder.name());
        }
        assert_eq!(record.view.turns, window.view.turns, "{}", recorder.name());
        for (prompt, turn) in &window.view.ended {
            assert_eq!(record.view.ended.get(prompt), Some(turn), "{}", recorder.name());
        }
    }
}

/// The laws that are broken at this moment, each with what breaks it. At rest there are none.
pub(crate) async fn violations(sql: &mut Sql) -> Vec<(&'static str, Vec<String>)> {
    let mut found = Vec::new();
    for (law, query) in LAWS {
        let rows = sql.texts(query).await;
        if !rows.is_empty() {
            found.push((law, rows));
        }
    }
    found
}

/// Asks until an answer is found, at most so long.
pub(crate) async fn soon<T>(what: &str, limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "{what}: not within {limit:?}");
        sleep(Duration::from_millis(10)).await;
    }
}
