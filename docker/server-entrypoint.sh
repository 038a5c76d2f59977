#!/usr/bin/env bash
# Starts the relay with the flags that the environment asks for, and behind them whatever arguments there are:
#
#   DOMAIN_SUFFIX ACME_DOMAIN ACME_EMAIL ACME_STAGING ACME_CREDS_PATH TLS_CERT TLS_KEY
#   API_PORT PUB_PORT ALPN_PORT ALLOW_CLIENT OPEN ADMIN_ADDR
#
# DOMAIN_SUFFIX and ALLOW_CLIENT may be several, by comma. A command (`allow ID`, `clients`) is run as it is.
set -euo pipefail
# shellcheck source=/dev/null
source "${BASH_SOURCE[0]%/*}/environment.sh"

if [[ $# -gt 0 && $1 != -* ]]; then
    exec server "$@"
fi

each --domain-suffix DOMAIN_SUFFIX domain
one --acme-domain ACME_DOMAIN domain
if given ACME_DOMAIN; then
    one --acme-email ACME_EMAIL email
    switch --acme-staging ACME_STAGING
    one --acme-creds-path ACME_CREDS_PATH path
else
    unused ACME_EMAIL email ACME_DOMAIN
    unused ACME_STAGING switch ACME_DOMAIN
    unused ACME_CREDS_PATH path ACME_DOMAIN
fi
brought ACME_DOMAIN
one --api-port API_PORT port
one --pub-port PUB_PORT port
one --alpn-port ALPN_PORT port
each --allow-client ALLOW_CLIENT 'id or file'
switch --open OPEN
if is_on OPEN && given ALLOW_CLIENT; then
    mistakes+=('OPEN takes no ALLOW_CLIENT beside it: it lets everybody in')
fi
one --admin-addr ADMIN_ADDR address

start server "$@" || {
    echo 'if all capabilities are dropped, server needs NET_BIND_SERVICE back, or the kernel does not start it' >&2
    exit 126
}
