-- Spreads the tables of usermgmt over the nodes of a Citus cluster. The operator runs it, once:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/citus.sql "$DATABASE_URL"
--
-- on the coordinator of a cluster whose workers are known (SELECT citus_add_node(...)), in a database that has the
-- extension (CREATE EXTENSION citus) and a current schema (usermgmt db upgrade). docs/scaling.md says when that is worth
-- it, which statements then ask every node, and what has not been tried. Never on a single node.
--
-- All of it is one transaction under exclusive locks: with rows in the tables, stop the server first.
-- deploy/citus_undo.sql is the way back.

BEGIN;

-- Two to four shards for each worker: a list asks every shard, so that many small ones make lists slow.
SET LOCAL citus.shard_count = 8;

-- Nothing that is not distributed may point at what is: these are put back at the end.
ALTER TABLE sessions      DROP CONSTRAINT fk_sessions_user;
ALTER TABLE role_grants   DROP CONSTRAINT fk_role_grants_user;
ALTER TABLE group_members DROP CONSTRAINT fk_group_members_user;

-- Small tables, whole on every node.
SELECT create_reference_table('roles');
SELECT create_reference_table('role_permissions');
SELECT create_reference_table('groups');
SELECT create_reference_table('ip_rules');
SELECT create_reference_table('ip_rule_version');
SELECT create_reference_table('signing_keys');
SELECT create_reference_table('root_secrets');

-- What an account owns lies where the account lies.
SELECT create_distributed_table('users', 'id', colocate_with => 'none');
SELECT create_distributed_table('sessions', 'user_id', colocate_with => 'users');
SELECT create_distributed_table('role_grants', 'user_id', colocate_with => 'users');
SELECT create_distributed_table('group_members', 'user_id', colocate_with => 'users');
SELECT create_distributed_table('audit_events', 'owner_id', colocate_with => 'users');

-- Names, counters and stored answers each lie by a key of their own.
SELECT create_distributed_table('login_names', 'name', colocate_with => 'none');
SELECT create_distributed_table('throttles', 'key', colocate_with => 'none');
SELECT create_distributed_table('idempotency_keys', 'principal', colocate_with => 'none');

-- audit_seals, audit_head, chores and alembic_version stay on the coordinator: one process at a time writes them.

ALTER TABLE sessions      ADD CONSTRAINT fk_sessions_user      FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE role_grants   ADD CONSTRAINT fk_role_grants_user   FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE group_members ADD CONSTRAINT fk_group_members_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;

COMMIT;

ANALYZE;
