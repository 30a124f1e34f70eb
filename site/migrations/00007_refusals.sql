-- +goose Up
-- What the roles said no to lately, for whoever asks why.
CREATE TABLE refusals (
	id   TEXT   NOT NULL,
	hop  TEXT   NOT NULL,
	made BIGINT NOT NULL,
	body TEXT   NOT NULL,
	PRIMARY KEY (id, hop)
);
CREATE INDEX refusals_by_time ON refusals (made, id);

-- +goose Down
DROP TABLE refusals;
