-- +goose Up
-- Collections of devices: a list, or a query over what is known of them. The
-- key is the name in lower case; query is empty for lists.
CREATE TABLE collections (
	name_key TEXT   NOT NULL PRIMARY KEY,
	name     TEXT   NOT NULL,
	query    TEXT   NOT NULL,
	made     BIGINT NOT NULL
);
CREATE TABLE collection_members (
	name_key TEXT NOT NULL,
	device   TEXT NOT NULL,
	PRIMARY KEY (name_key, device)
);
CREATE INDEX collection_members_by_device ON collection_members (device, name_key);

-- What discovery told last of each device.
CREATE TABLE device_facts (
	device TEXT NOT NULL,
	name   TEXT NOT NULL,
	value  TEXT NOT NULL,
	PRIMARY KEY (device, name)
);
ALTER TABLE policies ADD COLUMN collection TEXT NOT NULL DEFAULT '';
CREATE INDEX policies_by_collection ON policies (retired, collection);

-- +goose Down
DROP INDEX policies_by_collection;
ALTER TABLE policies DROP COLUMN collection;
DROP TABLE device_facts;
DROP TABLE collection_members;
DROP TABLE collections;
