#!/bin/sh
# What openconnect calls when a tunnel of the lab comes, breaks, comes back or goes.
# The stock script would touch this machine's resolver; this one stays in its namespace.
set -eu
case "$reason" in
connect)
    ip link set dev "$TUNDEV" up mtu "${INTERNAL_IP4_MTU:-1300}"
    ip address add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV"
    ip route replace 10.99.0.1/32 dev "$TUNDEV"
    if [ -n "${INTERNAL_IP6_ADDRESS:-}" ]; then
        ip address add "$INTERNAL_IP6_ADDRESS/128" dev "$TUNDEV" nodad
        ip route replace fd99::1/128 dev "$TUNDEV"
    fi
    ;;
disconnect) ip link set dev "$TUNDEV" down ;;
pre-init | attempt-reconnect | reconnect) ;;
esac
# Last, so that whoever reads it can send at once.
printf '%s %s\n' "$reason" "${INTERNAL_IP4_ADDRESS:-}" >>"$PENSTOCK_EVENTS"
