-- Sessions that were deleted: their ids are free, and what is left of them under their keys is removed little by little.
-- A row stays for a while after that, so that whoever was not told can find out. `deleted_by` is a person as JSON.
CREATE TABLE deleted_sessions (
    session_key bigint PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    epoch text NOT NULL,
    deleted_by text NOT NULL,
    deleted_at bigint NOT NULL,
    emptied boolean NOT NULL DEFAULT false
);

CREATE INDEX deleted_sessions_by_id ON deleted_sessions (id, epoch);
CREATE INDEX deleted_sessions_to_empty ON deleted_sessions (session_key) WHERE NOT emptied;
