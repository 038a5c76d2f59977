#!/usr/bin/env bash
# Starts the agent with the flags that the environment asks for, and behind them whatever arguments there are:
#
#   SERVER_ADDR SERVER_FINGERPRINT LOCAL_ADDR PRIMARY_KEY SECONDARY_KEY
#   PRIMARY_CERT_EXTENSION_HEX SECONDARY_CERT_EXTENSION_HEX DOMAIN_SUFFIX FORCE_HTTP2 POOL_SIZE
#   ACME_EMAIL ACME_STAGING ACME_CREDS_PATH CERT_PEM TLS_CERT TLS_KEY READY_FILE
#
# SERVER_ADDR may be several, by comma, and then SERVER_FINGERPRINT too. A command (`verify URL`) is run as it is.
set -euo pipefail
# shellcheck source=/dev/null
source "${BASH_SOURCE[0]%/*}/environment.sh"

if [[ $# -gt 0 && $1 != -* ]]; then
    exec client "$@"
fi

# How many values a variable has.
count() {
    local commas=${!1//[!,]/}
    echo $((${#commas} + 1))
}

each --server SERVER_ADDR relay
each --server-fingerprint SERVER_FINGERPRINT fingerprint
if ! given SERVER_ADDR && [[ $# -eq 0 ]]; then
    mistakes+=("SERVER_ADDR is missing: it takes ${TAKES[relay]}; several by comma")
elif given SERVER_ADDR && given SERVER_FINGERPRINT &&
    [[ $(count SERVER_ADDR) -ne $(count SERVER_FINGERPRINT) ]]; then
    mistakes+=('SERVER_FINGERPRINT takes one fingerprint for each relay in SERVER_ADDR, in the same order')
fi
one --local LOCAL_ADDR local
one --primary-key PRIMARY_KEY path
one --primary-cert-extension-hex PRIMARY_CERT_EXTENSION_HEX claim
one --secondary-key SECONDARY_KEY path
one --secondary-cert-extension-hex SECONDARY_CERT_EXTENSION_HEX claim
if given SECONDARY_CERT_EXTENSION_HEX && ! given SECONDARY_KEY; then
    mistakes+=('SECONDARY_CERT_EXTENSION_HEX takes SECONDARY_KEY beside it')
fi
one --domain-suffix DOMAIN_SUFFIX domain
switch --force-h2 FORCE_HTTP2
one --pool-size POOL_SIZE pool
one --acme-email ACME_EMAIL email
if given ACME_EMAIL; then
    switch --acme-staging ACME_STAGING
else
    unused ACME_STAGING switch ACME_EMAIL
fi
one --acme-creds-path ACME_CREDS_PATH path
one --cert-pem CERT_PEM path
brought ACME_EMAIL
one --ready-file READY_FILE path

start client "$@"
