-- +goose Up
-- The id of the newest task pushed, in a row of its own: whoever waits for
-- one looks at nothing else, and whoever makes one takes its turn here, so
-- that ids are seen in their order.
CREATE TABLE push_mark (
	one  INTEGER PRIMARY KEY CHECK (one = 1),
	last BIGINT  NOT NULL
);
INSERT INTO push_mark (one, last) VALUES (1, 0);

-- What devices are to do now. An empty device is all of them.
CREATE TABLE pushes (
	id      BIGINT NOT NULL PRIMARY KEY,
	device  TEXT   NOT NULL,
	task    BIGINT NOT NULL,
	guid    TEXT   NOT NULL,
	param   BLOB   NOT NULL,
	made    BIGINT NOT NULL,
	expires BIGINT NOT NULL
);
CREATE INDEX pushes_by_device ON pushes (device, id);
CREATE INDEX pushes_by_expiry ON pushes (expires);

-- How devices stood when the management points wrote it down last.
CREATE TABLE presence (
	device      TEXT    NOT NULL PRIMARY KEY,
	acked       BIGINT  NOT NULL,
	online      INTEGER NOT NULL,
	last_online BIGINT  NOT NULL,
	run         TEXT    NOT NULL
);

-- +goose Down
DROP TABLE presence;
DROP TABLE pushes;
DROP TABLE push_mark;
