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

-- Tenants of Microsoft Entra ID. Lists are JSON, keys those fetched last.
CREATE TABLE tenants (
	id        TEXT   NOT NULL PRIMARY KEY,
	name      TEXT   NOT NULL,
	authority TEXT   NOT NULL,
	roots     TEXT   NOT NULL,
	audiences TEXT   NOT NULL,
	client    TEXT   NOT NULL,
	resource  TEXT   NOT NULL,
	apps      TEXT   NOT NULL,
	keys      TEXT   NOT NULL,
	fetched   BIGINT NOT NULL,
	tried     BIGINT NOT NULL,
	failures  BIGINT NOT NULL,
	problem   TEXT   NOT NULL,
	added     BIGINT NOT NULL
);

-- A tenant's token opens registration and the token service of management
-- points that were published before there were tenants.
UPDATE routes SET route = replace(route, '"proofs":["token"]', '"proofs":["token","entra"]')
WHERE prefix_key LIKE '/ccm_proxy_serverauth/%/ccm_sts' OR prefix_key LIKE '/ccm_proxy_serverauth/%/ccm_system_tokenauth';
UPDATE site SET publication = publication + 1 WHERE publication > 0;

-- +goose Down
DROP TABLE tenants;
DROP TABLE crls;
DROP TABLE revocation;
