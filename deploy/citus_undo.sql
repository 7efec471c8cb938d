-- Brings every table that deploy/citus.sql spread back to the coordinator, as plain PostgreSQL has it:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/citus_undo.sql "$DATABASE_URL"
--
-- The coordinator's disk must hold everything. Stop the server first.

BEGIN;

-- With cascade_via_foreign_keys the tables that foreign keys link come along: sessions, role_grants, group_members, and
-- roles, role_permissions and groups.
SELECT undistribute_table('users', cascade_via_foreign_keys => true);
SELECT undistribute_table('audit_events');
SELECT undistribute_table('login_names');
SELECT undistribute_table('throttles');
SELECT undistribute_table('idempotency_keys');
SELECT undistribute_table('ip_rules');
SELECT undistribute_table('ip_rule_version');
SELECT undistribute_table('signing_keys');
SELECT undistribute_table('root_secrets');

COMMIT;

ANALYZE;
