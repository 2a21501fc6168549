#!/bin/sh
# What charon calls when a person's tunnel of the lab is there or gone, also when it came back by itself.
set -eu
case "$PLUTO_VERB" in
up-client) printf 'connect %s\n' "${PLUTO_MY_SOURCEIP:-}" >>"$1" ;;
esac
