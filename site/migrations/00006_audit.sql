-- +goose Up
-- Only ever written behind its end. Each row's hash covers the one before;
-- the site's row knows the last.
CREATE TABLE audit (
	seq    BIGINT NOT NULL PRIMARY KEY,
	made   BIGINT NOT NULL,
	actor  TEXT   NOT NULL,
	verb   TEXT   NOT NULL,
	object TEXT   NOT NULL,
	detail TEXT   NOT NULL,
	hash   TEXT   NOT NULL
);
ALTER TABLE site ADD COLUMN audit_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE site ADD COLUMN audit_hash TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE site DROP COLUMN audit_hash;
ALTER TABLE site DROP COLUMN audit_seq;
DROP TABLE audit;
