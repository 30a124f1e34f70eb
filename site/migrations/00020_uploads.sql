-- +goose Up
-- Files that devices uploaded by BITS; the bytes lie with the management point.
CREATE TABLE uploads (
	id       TEXT   NOT NULL PRIMARY KEY,
	device   TEXT   NOT NULL,
	name     TEXT   NOT NULL,
	size     BIGINT NOT NULL,
	sha256   TEXT   NOT NULL,
	received BIGINT NOT NULL
);
CREATE INDEX uploads_by_device ON uploads (device, received, id);
CREATE INDEX uploads_by_time ON uploads (received, id);

-- +goose Down
DROP TABLE uploads;
