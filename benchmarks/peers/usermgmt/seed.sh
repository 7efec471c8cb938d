#!/bin/bash
# A fresh database with 100,000 users: user1 … user99999 and admin, as the peers have them.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. benchmarks/peers/usermgmt/environment.sh
name="${USERMGMT_DATABASE__URL##*/}"
server="${USERMGMT_DATABASE__URL%/*}/postgres"
.venv/bin/python - "$server" "$name" <<'PY'
import asyncio, sys, asyncpg
async def main(server, name):
    connection = await asyncpg.connect(server)
    await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
asyncio.run(main(*sys.argv[1:]))
PY
.venv/bin/usermgmt db upgrade
echo -n Admin-Passw0rd-1 | .venv/bin/usermgmt admin create admin admin@example.com --password-stdin
echo -n User-Passw0rd-1 | .venv/bin/usermgmt seed --users 99999 --password-stdin
