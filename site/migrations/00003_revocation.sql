-- +goose Up
-- What an administrator set for all authorities (issuer empty) or for one.
-- Lists of addresses are JSON.
CREATE TABLE revocation (
	issuer TEXT   NOT NULL PRIMARY KEY,
	mode   TEXT   NOT NULL,
	grace  BIGINT NOT NULL,
	crl    TEXT   NOT NULL,
	ocsp   TEXT   NOT NULL
);

-- Lists of revoked certificates: where they are, and the last good one of
-- each. sha256 is empty until one was fetched.
CREATE TABLE crls (
	issuer      TEXT   NOT NULL,
	url         TEXT   NOT NULL,
	certificate BLOB   NOT NULL,
	etag        TEXT   NOT NULL,
	tried       BIGINT NOT NULL,
	failures    BIGINT NOT NULL,
	problem     TEXT   NOT NULL,
	fetched     BIGINT NOT NULL,
	scope       TEXT   NOT NULL,
	partial     INTEGER NOT NULL,
	this_update BIGINT NOT NULL,
	next_update BIGINT NOT NULL,
	revoked     BIGINT NOT NULL,
	sha256      TEXT   NOT NULL,
	document    BLOB   NOT NULL,
	PRIMARY KEY (issuer, url)
);
CREATE INDEX crls_by_digest ON crls (sha256, issuer, url);

-- +goose Down
DROP TABLE crls;
DROP TABLE revocation;
