-- +goose Up
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
