-- +goose Up
DROP INDEX policies_in_force;
CREATE INDEX policies_in_force ON policies (retired, added, id);

-- +goose Down
DROP INDEX policies_in_force;
CREATE INDEX policies_in_force ON policies (retired, id);
