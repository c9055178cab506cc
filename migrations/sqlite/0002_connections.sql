-- How many clients a node says that it has: told with its renewals, so that every node knows it of every other.
ALTER TABLE nodes ADD COLUMN connections INTEGER NOT NULL DEFAULT 0;
