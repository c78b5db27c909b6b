#!/bin/sh
# Pod 0 is the primary and every other pod follows it. Nothing is promoted by itself: when pod 0
# is away, lookups are UNAVAILABLE (never wrong) until it is back with its volume.
set -eu
set -- "${STORE_CONFIG:-/etc/valkey/valkey.conf}" \
    --port "${STORE_PORT:-6379}" --dir "${STORE_DIRECTORY:-/data}" \
    --requirepass "$STORE_PASSWORD" --primaryauth "$STORE_PASSWORD"
case "$POD_NAME" in
*-0) ;;
*) set -- "$@" --replicaof "$STORE_PRIMARY" "${STORE_PRIMARY_PORT:-6379}" ;;
esac
exec "${STORE_SERVER:-valkey-server}" "$@"
