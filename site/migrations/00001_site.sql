-- +goose Up
-- Times are microseconds since 1970 in UTC. Every query of the package is
-- served by a key or an index below; a test asks the planner.
CREATE TABLE site (
	one          INTEGER PRIMARY KEY CHECK (one = 1),
	code         TEXT    NOT NULL,
	hierarchy_id TEXT    NOT NULL,
	name         TEXT    NOT NULL,
	created      BIGINT  NOT NULL,
	next_package BIGINT  NOT NULL,
	publication  BIGINT  NOT NULL,
	published    BIGINT  NOT NULL
);

CREATE TABLE devices (
	id                 TEXT   NOT NULL PRIMARY KEY,
	name               TEXT   NOT NULL,
	fqdn               TEXT   NOT NULL,
	agent              TEXT   NOT NULL,
	certificate        BLOB   NOT NULL,
	key_id             TEXT   NOT NULL UNIQUE,
	approval           TEXT   NOT NULL CHECK (approval IN ('pending', 'approved', 'blocked')),
	proof              TEXT   NOT NULL,
	registration_token TEXT   NOT NULL,
	registered         BIGINT NOT NULL,
	last_seen          BIGINT NOT NULL
);

-- Ids and validity only: the text of a token is stored nowhere.
CREATE TABLE tokens (
	id         TEXT    NOT NULL PRIMARY KEY,
	kind       TEXT    NOT NULL,
	device     TEXT    NOT NULL,
	note       TEXT    NOT NULL,
	created    BIGINT  NOT NULL,
	not_before BIGINT  NOT NULL,
	expires    BIGINT  NOT NULL,
	max_uses   BIGINT  NOT NULL,
	uses       BIGINT  NOT NULL,
	blocked    INTEGER NOT NULL
);
CREATE INDEX tokens_by_kind ON tokens (kind, created, id);
CREATE INDEX tokens_by_expiry ON tokens (expires);

-- Signed times that were shown once and must not be shown again.
CREATE TABLE proofs (
	proof TEXT   NOT NULL PRIMARY KEY,
	until BIGINT NOT NULL
);
CREATE INDEX proofs_by_time ON proofs (until);

CREATE TABLE certificates (
	thumbprint TEXT   NOT NULL PRIMARY KEY,
	role       TEXT   NOT NULL,
	name       TEXT   NOT NULL,
	der        BLOB   NOT NULL,
	not_after  BIGINT NOT NULL,
	recorded   BIGINT NOT NULL
);

CREATE TABLE packages (
	id       TEXT   NOT NULL,
	version  BIGINT NOT NULL,
	name     TEXT   NOT NULL,
	files    BIGINT NOT NULL,
	size     BIGINT NOT NULL,
	manifest TEXT   NOT NULL,
	added    BIGINT NOT NULL,
	PRIMARY KEY (id, version)
);

CREATE TABLE policies (
	id       TEXT    NOT NULL PRIMARY KEY,
	version  TEXT    NOT NULL,
	category TEXT    NOT NULL,
	flags    BIGINT  NOT NULL,
	body     BLOB    NOT NULL,
	sha256   TEXT    NOT NULL,
	added    BIGINT  NOT NULL,
	retired  INTEGER NOT NULL
);
CREATE INDEX policies_in_force ON policies (retired, id);

CREATE TABLE deployment_states (
	policy  TEXT   NOT NULL,
	device  TEXT   NOT NULL,
	state   TEXT   NOT NULL,
	detail  TEXT   NOT NULL,
	updated BIGINT NOT NULL,
	PRIMARY KEY (policy, device)
);

CREATE TABLE routes (
	prefix_key TEXT NOT NULL PRIMARY KEY,
	route      TEXT NOT NULL,
	target     TEXT NOT NULL
);

CREATE TABLE anchors (
	thumbprint TEXT NOT NULL PRIMARY KEY,
	pem        TEXT NOT NULL
);

CREATE TABLE token_keys (
	id  TEXT NOT NULL PRIMARY KEY,
	jwk TEXT NOT NULL
);

CREATE TABLE gateways (
	host TEXT   NOT NULL,
	port BIGINT NOT NULL,
	PRIMARY KEY (host, port)
);

CREATE TABLE role_ids (
	id   BIGINT NOT NULL PRIMARY KEY,
	kind TEXT   NOT NULL,
	name TEXT   NOT NULL,
	UNIQUE (kind, name)
);

-- A message id is the sender's choice, so it counts within its device only.
CREATE TABLE reports (
	device   TEXT   NOT NULL,
	id       TEXT   NOT NULL,
	kind     TEXT   NOT NULL,
	received BIGINT NOT NULL,
	body     TEXT   NOT NULL,
	PRIMARY KEY (device, id)
);
CREATE INDEX reports_by_time ON reports (received, id);
CREATE INDEX reports_by_kind ON reports (kind, received, id);
CREATE INDEX reports_by_device ON reports (device, received, id);
CREATE INDEX reports_by_device_kind ON reports (device, kind, received, id);

-- +goose Down
DROP TABLE reports;
DROP TABLE role_ids;
DROP TABLE gateways;
DROP TABLE token_keys;
DROP TABLE anchors;
DROP TABLE routes;
DROP TABLE deployment_states;
DROP TABLE policies;
DROP TABLE packages;
DROP TABLE certificates;
DROP TABLE proofs;
DROP TABLE tokens;
DROP TABLE devices;
DROP TABLE site;
