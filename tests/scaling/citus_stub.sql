-- Stands for the functions of Citus that the operator's files call, with the refusals of Citus that were observed:
-- names, constraints and the order of the steps are executed for real on plain PostgreSQL. It distributes nothing.

CREATE SCHEMA citus_stub;
CREATE TABLE citus_stub.placed (
  name regclass PRIMARY KEY, kind text NOT NULL, distributed_by text, colocated_with text
);

CREATE FUNCTION citus_stub.refuse_incoming(what regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  link record;
BEGIN
  FOR link IN SELECT conname, conrelid FROM pg_constraint WHERE contype = 'f' AND confrelid = what LOOP
    IF NOT EXISTS (SELECT FROM citus_stub.placed WHERE name = link.conrelid AND kind = 'distributed') THEN
      RAISE EXCEPTION '%: foreign keys from reference tables and local tables to distributed tables are not supported',
        link.conname;
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION citus_stub.create_reference_table(table_name regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO citus_stub.placed VALUES (table_name, 'reference');
END $$;

CREATE FUNCTION citus_stub.create_distributed_table(
  table_name regclass, distribution_column text, colocate_with text DEFAULT 'default'
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  place int2;
BEGIN
  SELECT attnum INTO STRICT place FROM pg_attribute
    WHERE attrelid = table_name AND attname = distribution_column AND attnotnull;
  IF EXISTS (SELECT FROM pg_index WHERE indrelid = table_name AND indisunique AND NOT place = ANY (indkey::int2[])) THEN
    RAISE EXCEPTION '%: a unique key must contain the distribution column', table_name;
  END IF;
  IF colocate_with <> 'none' AND NOT EXISTS (
    SELECT FROM citus_stub.placed WHERE name = colocate_with::regclass AND kind = 'distributed'
  ) THEN
    RAISE EXCEPTION '%: % is not distributed', table_name, colocate_with;
  END IF;
  PERFORM citus_stub.refuse_incoming(table_name);
  INSERT INTO citus_stub.placed VALUES (table_name, 'distributed', distribution_column, colocate_with);
END $$;

CREATE FUNCTION citus_stub.undistribute_table(
  table_name regclass, cascade_via_foreign_keys boolean DEFAULT false
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM citus_stub.placed WHERE name = table_name) THEN
    RAISE EXCEPTION '% is not distributed', table_name;
  END IF;
  IF cascade_via_foreign_keys THEN
    WITH RECURSIVE linked (name) AS (
      SELECT table_name::oid
      UNION
      SELECT CASE WHEN conrelid = linked.name THEN confrelid ELSE conrelid END
        FROM pg_constraint JOIN linked ON linked.name IN (conrelid, confrelid) WHERE contype = 'f'
    )
    DELETE FROM citus_stub.placed USING linked WHERE placed.name = linked.name;
  ELSIF EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND table_name IN (conrelid, confrelid)) THEN
    RAISE EXCEPTION '%: cannot be undistributed because it has a foreign key', table_name;
  ELSE
    DELETE FROM citus_stub.placed WHERE name = table_name;
  END IF;
END $$;
