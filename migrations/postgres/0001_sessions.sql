-- The durable state of a cluster: sessions and their logs, turns, nodes.
-- Texts named *row*, *body*, *text* and *parts* are JSON as it is sent or read back, never re-encoded here.
-- Pages of rows that every append rewrites are kept half empty, so that the new version lies beside the old one and no
-- index is touched.

CREATE TABLE meta (
    name text PRIMARY KEY,
    value text NOT NULL
);

-- Raised by `rejoin migrate --new-history` after a restore: a part of every epoch.
INSERT INTO meta (name, value) VALUES ('history', '1');

-- No index but that of the key: a renewal writes no key column, so it never waits for those who start turns.
CREATE TABLE nodes (
    incarnation text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('live', 'draining', 'dead')),
    beat bigint NOT NULL,
    lease_ttl_ms bigint NOT NULL,
    exclusive boolean NOT NULL,
    started_at bigint NOT NULL
) WITH (fillfactor = 30);

-- Whoever writes anything of a session holds its row's lock. `last_seq` is the head of its log.
CREATE TABLE sessions (
    key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    epoch text NOT NULL,
    last_seq bigint NOT NULL,
    title text,
    metadata text NOT NULL,
    max_running bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX sessions_by_update ON sessions (updated_at, key);

-- `flush` is the number of the flush that wrote a delta.
CREATE TABLE events (
    session_key bigint NOT NULL,
    seq bigint NOT NULL,
    kind text NOT NULL,
    turn_id text COLLATE "C",
    flush bigint,
    body text NOT NULL,
    PRIMARY KEY (session_key, seq)
);

CREATE TABLE messages (
    session_key bigint NOT NULL,
    seq bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (session_key, seq)
);

CREATE UNIQUE INDEX messages_by_id ON messages (session_key, id);

-- `row` is the whole turn, but for the number of its flushes, which is `flushed`.
CREATE TABLE turns (
    id text COLLATE "C" PRIMARY KEY,
    session_key bigint NOT NULL,
    status text NOT NULL,
    prompt_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    owner text COLLATE "C",
    term bigint NOT NULL,
    flushed bigint NOT NULL,
    intent boolean NOT NULL,
    ended_at bigint,
    compacted boolean NOT NULL DEFAULT false,
    row text NOT NULL
) WITH (fillfactor = 50);

CREATE INDEX turns_live ON turns (session_key, status) WHERE status IN ('queued', 'running');
CREATE INDEX turns_running ON turns (owner) WHERE status = 'running';
CREATE INDEX turns_by_prompt ON turns (session_key, prompt_id, attempt);
CREATE INDEX turns_to_compact ON turns (ended_at) WHERE NOT compacted AND ended_at IS NOT NULL;

-- Every 8 KiB of a running answer: the fold of its deltas since the chunk before, up to the seq `upto`.
CREATE TABLE chunks (
    turn_id text COLLATE "C" NOT NULL,
    upto bigint NOT NULL,
    parts text NOT NULL,
    PRIMARY KEY (turn_id, upto)
);
