-- +goose Up
-- The path by which the field's clients with tokens fetch policies, for
-- management points that were published before there was one.
INSERT INTO routes (prefix_key, route, target)
	SELECT prefix_key || '_tokenauth', replace(replace(route, '/SMS_MP"', '/SMS_MP_TokenAuth"'), '"name":"SMS_MP"', '"name":"SMS_MP_TokenAuth"'), target || '_TokenAuth'
	FROM routes WHERE prefix_key LIKE '/ccm_proxy_%auth/%/sms_mp' AND target LIKE '%/SMS_MP'
	ON CONFLICT (prefix_key) DO NOTHING;
UPDATE site SET publication = publication + 1 WHERE one = 1;

-- +goose Down
DELETE FROM routes WHERE prefix_key LIKE '/ccm_proxy_%auth/%/sms_mp_tokenauth';
