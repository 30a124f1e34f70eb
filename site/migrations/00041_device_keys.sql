-- +goose Up
-- The certificate that a device's secrets are encrypted to, and what its
-- hardware is called: nothing is proven by the latter.
ALTER TABLE devices ADD COLUMN encryption BLOB NOT NULL DEFAULT '';
ALTER TABLE devices ADD COLUMN hardware TEXT NOT NULL DEFAULT '';
CREATE INDEX devices_by_hardware ON devices (hardware, id);
CREATE INDEX devices_by_proof ON devices (proof, approval);
CREATE INDEX deployment_states_by_device ON deployment_states (device);

-- +goose Down
DROP INDEX deployment_states_by_device;
DROP INDEX devices_by_proof;
DROP INDEX devices_by_hardware;
ALTER TABLE devices DROP COLUMN hardware;
ALTER TABLE devices DROP COLUMN encryption;
