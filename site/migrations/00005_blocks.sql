-- +goose Up
-- Those whom an administrator has shut out. What a device's approval was
-- before stands here, so that it comes back when the block is lifted.
CREATE TABLE blocks (
	kind   TEXT   NOT NULL,
	value  TEXT   NOT NULL,
	reason TEXT   NOT NULL,
	actor  TEXT   NOT NULL,
	made   BIGINT NOT NULL,
	until  BIGINT NOT NULL,
	former TEXT   NOT NULL,
	PRIMARY KEY (kind, value)
);
CREATE INDEX blocks_by_end ON blocks (until);
INSERT INTO blocks (kind, value, reason, actor, made, until, former)
	SELECT 'token', id, '', '', created, expires, '' FROM tokens WHERE blocked = 1;
INSERT INTO blocks (kind, value, reason, actor, made, until, former)
	SELECT 'device', id, '', '', registered, 0, 'pending' FROM devices WHERE approval = 'blocked';
-- Gateways have to hear of the hierarchy, and of these blocks.
UPDATE site SET publication = publication + 1 WHERE one = 1;
ALTER TABLE tokens ADD COLUMN sources TEXT NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN client_certificate TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE devices DROP COLUMN client_certificate;
ALTER TABLE tokens DROP COLUMN sources;
DROP TABLE blocks;
