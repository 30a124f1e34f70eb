-- +goose Up
-- What gateways make the keys of TLS session tickets of. Those whose time is
-- over are deleted, so that what was recorded then stays closed.
CREATE TABLE ticket_secrets (
	id     TEXT   NOT NULL PRIMARY KEY,
	secret BLOB   NOT NULL,
	begins BIGINT NOT NULL,
	ends   BIGINT NOT NULL
);

CREATE INDEX ticket_secrets_ends ON ticket_secrets (ends);

-- +goose Down
DROP TABLE ticket_secrets;
