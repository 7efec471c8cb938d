-- Divides the record (audit_events) by month, on plain PostgreSQL 14 or newer. The operator runs it, once:
--
--     psql -v ON_ERROR_STOP=1 -f deploy/partition_audit.sql "$DATABASE_URL"
--
-- as the role that owns the tables. docs/scaling.md says when that is worth it and what it costs. Nothing is copied: the
-- table as it is becomes the first part, up to the end of this month. The server may run meanwhile; it waits for the
-- second transaction, which takes a moment.
--
-- Afterwards, each month, before the months made ahead are used up:    SELECT audit_events_add_months(3);
-- and to give back the space of months that retention has emptied:     SELECT audit_events_drop_empty();
--
-- The key stays (owner_id, id). Ids are UUIDs of version 7, which begin with their time: a month is a range of ids.

BEGIN;

CREATE FUNCTION audit_events_first_id(start timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT (lpad(to_hex((extract(epoch FROM start) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

CREATE FUNCTION audit_events_month(ahead int) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') + ahead * interval '1 month') AT TIME ZONE 'UTC'
$$;

-- Makes the parts of the next months that are not there yet; what waits in audit_events_rest for them is moved.
CREATE FUNCTION audit_events_add_months(months int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  part text;
  low uuid;
  high uuid;
  made int := 0;
BEGIN
  FOR ahead IN 1..months LOOP
    part := 'audit_events_' || to_char(audit_events_month(ahead) AT TIME ZONE 'UTC', 'YYYY_MM');
    CONTINUE WHEN to_regclass(part) IS NOT NULL;
    low := audit_events_first_id(audit_events_month(ahead));
    high := audit_events_first_id(audit_events_month(ahead + 1));
    EXECUTE format('CREATE TABLE %I (LIKE audit_events INCLUDING DEFAULTS)', part);
    EXECUTE format(
      'WITH moved AS (DELETE FROM audit_events_rest WHERE id >= %L AND id < %L RETURNING *)
       INSERT INTO %I SELECT * FROM moved', low, high, part);
    EXECUTE format('ALTER TABLE audit_events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, low, high);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

-- Drops the parts of past months in which nothing is left. The server empties them by the retention that is set; a part
-- is never dropped before, or the record would no longer verify.
CREATE FUNCTION audit_events_drop_empty() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  part record;
  has_rows boolean;
  dropped int := 0;
BEGIN
  FOR part IN
    SELECT child.oid::regclass AS name
    FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
    WHERE inhparent = 'audit_events'::regclass
      AND substring(pg_get_expr(child.relpartbound, child.oid) FROM $b$TO \('([0-9a-f-]+)'\)$b$)::uuid
        <= audit_events_first_id(audit_events_month(0))
  LOOP
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part.name);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part.name) INTO has_rows;
    CONTINUE WHEN has_rows;
    EXECUTE format('DROP TABLE %s', part.name);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;

DO $$
BEGIN
  EXECUTE format(
    'ALTER TABLE audit_events ADD CONSTRAINT ck_audit_events_past CHECK (id < %L) NOT VALID',
    audit_events_first_id(audit_events_month(1)));
END $$;

COMMIT;

-- Reads the whole table once, beside readers and writers, so that the next step need not.
ALTER TABLE audit_events VALIDATE CONSTRAINT ck_audit_events_past;

BEGIN;

SET LOCAL lock_timeout = '5s';

ALTER TABLE audit_events RENAME TO audit_events_past;
ALTER TABLE audit_events_past RENAME CONSTRAINT pk_audit_events TO pk_audit_events_past;
ALTER INDEX ix_audit_events_at         RENAME TO ix_audit_events_past_at;
ALTER INDEX ix_audit_events_by_owner   RENAME TO ix_audit_events_past_by_owner;
ALTER INDEX ix_audit_events_by_actor   RENAME TO ix_audit_events_past_by_actor;
ALTER INDEX ix_audit_events_by_target  RENAME TO ix_audit_events_past_by_target;
ALTER INDEX ix_audit_events_by_event   RENAME TO ix_audit_events_past_by_event;
ALTER INDEX ix_audit_events_by_address RENAME TO ix_audit_events_past_by_address;
ALTER INDEX ix_audit_events_failed     RENAME TO ix_audit_events_past_failed;

CREATE TABLE audit_events (LIKE audit_events_past INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE audit_events ADD CONSTRAINT pk_audit_events PRIMARY KEY (owner_id, id);
CREATE INDEX ix_audit_events_at         ON audit_events (at, id);
CREATE INDEX ix_audit_events_by_owner   ON audit_events (owner_id, at, id);
CREATE INDEX ix_audit_events_by_actor   ON audit_events (actor_id, at, id);
CREATE INDEX ix_audit_events_by_target  ON audit_events (target_id, at, id);
CREATE INDEX ix_audit_events_by_event   ON audit_events (event, at, id);
CREATE INDEX ix_audit_events_by_address ON audit_events (address, at, id);
CREATE INDEX ix_audit_events_failed     ON audit_events (at, id) WHERE outcome = 'failure';

DO $$
BEGIN
  EXECUTE format(
    'ALTER TABLE audit_events ATTACH PARTITION audit_events_past FOR VALUES FROM (MINVALUE) TO (%L)',
    audit_events_first_id(audit_events_month(1)));
END $$;

-- Takes what no month was made for: no event is ever refused.
CREATE TABLE audit_events_rest PARTITION OF audit_events DEFAULT;

ALTER TABLE audit_events_past DROP CONSTRAINT ck_audit_events_past;

SELECT audit_events_add_months(3);

COMMIT;

ANALYZE audit_events;
