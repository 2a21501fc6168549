# Completion of penstock for bash, written from its command line.
@TABLES@
_penstock() {
    local path=penstock word before=${COMP_WORDS[COMP_CWORD - 1]} now=${COMP_WORDS[COMP_CWORD]}
    local -i at
    for ((at = 1; at < COMP_CWORD; at++)); do
        word="$path ${COMP_WORDS[at]}"
        [[ -n ${_penstock_words[$word]+there} ]] && path=$word
    done
    local said=${_penstock_words[$path]}
    [[ -n ${_penstock_values["$path $before"]+there} ]] && said=${_penstock_values["$path $before"]}
    case $said in
    @files) mapfile -t COMPREPLY < <(compgen -f -- "$now") && compopt -o filenames 2>/dev/null ;;
    @asked)
        mapfile -t COMPREPLY < <(
            COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _PENSTOCK_COMPLETE=complete_bash penstock 2>/dev/null
        )
        ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$said" -- "$now")
        # An argument of a command may be a file as well as a name that only the API knows.
        [[ ${#COMPREPLY[@]} -eq 0 && $now != -* ]] && mapfile -t COMPREPLY < <(compgen -f -- "$now")
        ;;
    esac
}
complete -F _penstock penstock
