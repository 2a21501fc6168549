#!/bin/sh
# What openvpn calls when its tunnel of the lab is there, also when it came back by itself.
set -eu
ip route replace 10.99.0.1/32 dev "$dev"
[ -z "${ifconfig_ipv6_local:-}" ] || ip route replace fd99::1/128 dev "$dev"
# Last, so that whoever reads it can send at once.
printf 'connect %s\n' "$ifconfig_local" >>"$PENSTOCK_EVENTS"
