#!/usr/bin/env bash
# Whether the relay says of itself that it runs: /healthz at ADMIN_ADDR.
set -euo pipefail

readonly ADMIN_ADDR=${ADMIN_ADDR:?names no address at which the relay tells how it is}
host=${ADMIN_ADDR%:*}
host=${host#[}
case ${host%]} in
0.0.0.0) host=127.0.0.1 ;;
::) host=::1 ;;
*) host=${host%]} ;;
esac
exec 3<>"/dev/tcp/$host/${ADMIN_ADDR##*:}"
printf 'GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
read -r -t 3 _ code _ <&3
[[ $code == 200 ]]
