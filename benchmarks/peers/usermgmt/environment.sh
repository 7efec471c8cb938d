# What the server is run with beside its peers: everything on that a user gets by default, except the request budgets.
export USERMGMT_DATABASE__URL="${PEERS_DATABASE_URL:-postgresql://postgres@127.0.0.1:55432/bench_usermgmt}"
export USERMGMT_SECRET__KEYS=Zk3v9QmT1xYw7RbN5cLs8HdJ2gFp6AuE4iOoKyVtXeWr
export USERMGMT_LIMITS__ENABLED=false
export USERMGMT_LOGS__LEVEL=warning
unset USERMGMT_CONFIG
