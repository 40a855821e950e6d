#!/bin/sh
# ippmpi-rank.sh: the parent of one rank where there was no C compiler. Same use and behaviour as src/rank.c, except:
# * when this shell is killed (SIGKILL) the rank does not die by itself: the engine sees IPPMPI_PARENT=sh and asks the
#   kernel for that (it compares its parent with IPPMPI_PARENT_PID);
# * an exit code above 128 that belongs to a signal is recorded as that signal: `wait` cannot tell the two apart;
# * SIGTSTP is passed on as SIGSTOP: the rank lives in its own session, where the kernel ignores SIGTSTP.

fail() {
    echo "ippmpi-rank: $1: $2" >&2
    exit 125
}

if [ $# -lt 4 ] || [ "$1" != --folder ] || [ "$3" != -- ]; then
    fail usage "ippmpi-rank.sh --folder DIR -- PROGRAM [ARGUMENT...]"
fi
folder=$2
shift 3

# --- the folder of exit records: ours alone, or others could tell us how ranks ended ---

mkdir -m 0700 "$folder" 2>/dev/null
[ ! -L "$folder" ] && [ -d "$folder" ] || fail "$folder" "must be a folder, no link or file, and it can't be made"
listed=$(ls -ldn "$folder/") || fail "$folder" "cannot be looked at"
read -r mode _ owner _ <<END
$listed
END
[ "$owner" = "$(id -u)" ] || fail "$folder" "belongs to another user"
case $mode in
    d???--[-S]--[-T]*) ;;
    *) fail "$folder" "must have mode 0700, others have access" ;;
esac

# --- the rank, in its own process group; a shell's background jobs ignore SIGINT and SIGQUIT, env takes that back ---

IPPMPI_PARENT=sh
IPPMPI_PARENT_PID=$$
export IPPMPI_PARENT IPPMPI_PARENT_PID
host=$(uname -n | cut -c1-40) # now: at the end mpiexec may be killing us already
program=$1
if env --default-signal=INT,QUIT true 2>/dev/null; then set -- env --default-signal=INT,QUIT -- "$@"; fi
if command -v setsid >/dev/null; then set -- setsid -- "$@"; else set -m; fi

rank='' early='' interrupted=''
pass_on() {
    interrupted=yes
    if [ -n "$rank" ]; then kill -s "$1" "$rank" 2>/dev/null; else early="$early $1"; fi
}
for name in HUP INT QUIT USR1 USR2 TERM CONT; do
    # shellcheck disable=SC2064 # the name of now is meant
    trap "pass_on $name" "$name"
done
trap 'pass_on STOP' TSTP

exec 3<&0 # a background job's stdin is /dev/null unless it is given one
(
    exec 0<&3 3<&-
    command -v "$program" >/dev/null || echo "ippmpi-rank: cannot run $program: not found" >&2
    exec "$@"
) &
rank=$!
exec 3<&-
for name in $early; do kill -s "$name" "$rank" 2>/dev/null; done

# --- Open MPI's ranks would stay for good when mpiexec is killed: look for it now and then ---

watcher=''
if [ -n "${PMIX_RANK-}" ] && command -v setsid >/dev/null; then
    # shellcheck disable=SC2016 # the inner shell expands them
    watch='while kill -0 "$1" && kill -0 "$2"; do sleep 1; done; kill -s KILL -- "-$2"'
    setsid sh -c "$watch" sh "$PPID" "$rank" </dev/null >/dev/null 2>&1 &
    watcher=$!
fi

# --- its end: `wait` also returns when a signal was passed on, in rare cases before the trap ran; then again ---

status=0
while
    interrupted=''
    wait "$rank" 2>/dev/null # a shell would report "Killed" there; mpiexec does
    status=$?
    [ -n "$interrupted" ] || kill -0 "$rank" 2>/dev/null
do :; done

[ -z "$watcher" ] || kill -s KILL -- "-$watcher" 2>/dev/null

ended="exit $status"
signal=$((status - 128))
if [ $signal -gt 0 ] && [ $signal -lt 65 ] && kill -l $signal >/dev/null 2>&1; then ended="signal $signal"; fi
record=$folder/$host.$rank.exit
umask 077
if [ -d "$folder" ]; then # else it was removed: its world is over and nobody asks
    { echo "$ended" >"$record.new" && mv -f "$record.new" "$record"; } ||
        echo "ippmpi-rank: cannot record the end of process $rank" >&2
fi
kill -s KILL -- "-$rank" 2>/dev/null # children it left behind

# --- end like the rank, without a second core dump ---

case $ended in
    signal*)
        ulimit -c 0
        trap - HUP INT QUIT USR1 USR2 TERM CONT TSTP
        kill -s "$signal" $$
        ;;
esac
exit "$status"
