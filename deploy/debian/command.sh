#!/bin/sh
# What a person types: with the settings of this host's processes, except where the caller says otherwise.
settings=/etc/default/@NAME@
if [ -r "$settings" ]; then
    while IFS='=' read -r name value; do
        case $name in
        PENSTOCK_*[!A-Z0-9_]*) ;;
        PENSTOCK_*)
            value=${value#[\"\']} value=${value%[\"\']}
            eval "[ -n \"\${$name+said}\" ] || export $name=\$value"
            ;;
        esac
    done <"$settings"
elif [ -e "$settings" ]; then # it may hold passwords; who may not read it still finds the API of this host
    export PENSTOCK_SOCKET="${PENSTOCK_SOCKET-/run/penstock/penstock.sock}"
fi
exec /usr/lib/@NAME@/bin/penstock "$@"
