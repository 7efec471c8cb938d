#!/bin/bash
# run.sh PORT WORKERS   (SERVER=granian for that server)
cd "$(dirname "$0")/../../.." || exit 1
. benchmarks/peers/usermgmt/environment.sh
export USERMGMT_SERVER__PUBLIC_URL="http://127.0.0.1:${1:-8020}"
exec .venv/bin/usermgmt serve --server "${SERVER:-hypercorn}" --port "${1:-8020}" --workers "${2:-1}"
