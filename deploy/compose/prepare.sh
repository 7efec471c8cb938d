#!/bin/sh
# Makes what deploy/compose.yml needs and a repository must not hold: secrets, and a certificate for a first look.
# What is there already stays as it is.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir -p secrets tls

word() { head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }
keep() { test -s "secrets/$1" || cat > "secrets/$1"; }

word | keep database_password
word | keep valkey_password
word | keep grafana_password
word | keep first_admin
head -c 48 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n' | keep secret_keys
printf 'postgresql://usermgmt:%s@postgresql:5432/usermgmt' "$(cat secrets/database_password)" | keep database_url
printf 'valkey://:%s@valkey:6379/0' "$(cat secrets/valkey_password)" | keep valkey_url
printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy volatile-ttl\n' \
    "$(cat secrets/valkey_password)" | keep valkey.conf

if ! test -s tls/cert.pem; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 \
        -subj /CN=accounts.example.com -addext subjectAltName=DNS:accounts.example.com \
        -keyout tls/key.pem -out tls/cert.pem 2>/dev/null
fi

# Compose mounts these as they are, and the containers read them as users of their own; the folder keeps others out.
chmod 644 secrets/* tls/*
chmod 700 secrets tls
echo "The first administrator is root; the password is in $(pwd)/secrets/first_admin"
