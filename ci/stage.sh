# stage NAME COMMAND [ARGUMENT...]: run one stage of the check, print its name and time, end the shell if it fails.
#
# COMMAND may be a function. It runs in a subshell outside any condition, so that "set -e" holds inside it; its exit status is
# taken outside, where "exit" ends the whole run.
stage() {
    current_stage=$1
    shift
    printf '\n=== %s\n' "$current_stage"
    local begin=$SECONDS status
    set +e
    (
        set -e
        "$@"
    )
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        exit "$status"
    fi
    printf '=== %s: passed in %d s\n' "$current_stage" $((SECONDS - begin))
}
