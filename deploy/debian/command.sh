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
fi
exec /usr/lib/@NAME@/bin/penstock "$@"
