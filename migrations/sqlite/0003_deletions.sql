-- Sessions that were deleted: their ids are free, and what is left of them under their keys is removed little by little.
-- A row stays for a while after that, so that whoever was not told can find out. `deleted_by` is a person as JSON.
CREATE TABLE deleted_sessions (
    session_key INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    epoch TEXT NOT NULL,
    deleted_by TEXT NOT NULL,
    deleted_at INTEGER NOT NULL,
    emptied INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX deleted_sessions_by_id ON deleted_sessions (id, epoch);
CREATE INDEX deleted_sessions_to_empty ON deleted_sessions (session_key) WHERE emptied = 0;
