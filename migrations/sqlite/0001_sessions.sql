-- The durable state of a server: sessions and their logs, turns, nodes.
-- Texts named *row*, *body*, *text* and *parts* are JSON as it is sent or read back, never re-encoded here.

PRAGMA application_id = 0x524A4F4E; -- "RJON"

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Raised by `rejoin migrate --new-history` after a restore: a part of every epoch.
INSERT INTO meta (name, value) VALUES ('history', '1');

CREATE TABLE nodes (
    incarnation TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'draining', 'dead')),
    beat INTEGER NOT NULL,
    lease_ttl_ms INTEGER NOT NULL,
    exclusive INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    key INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    title TEXT,
    metadata TEXT NOT NULL,
    max_running INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_update ON sessions (updated_at, key);

-- The head of a log is its highest seq: the newest event is never one that compaction drops. `flush` is the number of
-- the flush that wrote a delta. So an append of deltas writes here and nowhere else.
CREATE TABLE events (
    session_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind TEXT NOT NULL,
    turn_id TEXT,
    flush INTEGER,
    body TEXT NOT NULL,
    PRIMARY KEY (session_key, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    session_key INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (session_key, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX messages_by_id ON messages (session_key, id);

-- `row` is the whole turn. While it runs, its newest delta may tell a higher number of flushes than `row` does.
CREATE TABLE turns (
    id TEXT PRIMARY KEY,
    session_key INTEGER NOT NULL,
    status TEXT NOT NULL,
    prompt_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT,
    term INTEGER NOT NULL,
    intent INTEGER NOT NULL,
    ended_at INTEGER,
    compacted INTEGER NOT NULL DEFAULT 0,
    row TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX turns_live ON turns (session_key, status) WHERE status IN ('queued', 'running');
CREATE INDEX turns_running ON turns (owner) WHERE status = 'running';
CREATE INDEX turns_by_prompt ON turns (session_key, prompt_id, attempt);
CREATE INDEX turns_to_compact ON turns (ended_at) WHERE compacted = 0 AND ended_at IS NOT NULL;

-- Every 8 KiB of a running answer: the fold of its deltas since the chunk before, up to the seq `upto`.
CREATE TABLE chunks (
    turn_id TEXT NOT NULL,
    upto INTEGER NOT NULL,
    parts TEXT NOT NULL,
    PRIMARY KEY (turn_id, upto)
) STRICT, WITHOUT ROWID;
