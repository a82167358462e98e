#!/bin/sh
# Saves what the tools of cmafs need to know of this board into one tar: what CMA's files say, /proc, the
# device tree, the configuration, the log. Needs a POSIX shell, cat, cp, dd, find, mkdir, mv, rm, sed, tar, tr
# and uname, as busybox has them, and root. Nothing is changed on the board, but by --walk and --trace.
usage() {
    cat <<'TEXT'
usage: sh record.sh [--output FILE] [--trace SECONDS] [--walk AREA [--steps N] [--seed N]] [--root DIR]
  --output FILE    where to write (default: record.tar in this directory)
  --trace SECONDS  trace the events of cma for so long, or during the walk
  --walk AREA      allocate and free in this area through debugfs, and write down every answer;
                   all that was allocated is given back at the end
  --steps N        how many requests (default: 40)
  --seed N         which ones (default: 1)
  --root DIR       read below DIR (default: /)
Then, elsewhere: cmafs map FILE, cmafs why FILE, cmafs compare FILE
TEXT
}

LC_ALL=C
export LC_ALL
output=record.tar seconds='' area='' steps=40 seed=1 root='' part='' traced='' ended=''

fail() {
    echo "record.sh: $1" >&2
    exit "${2:-1}"
}

# sets $number
wanted() {
    number=$2
    while [ "${number#0?}" != "$number" ]; do
        number=${number#0}
    done
    case $number in
    '' | *[!0-9]* | ??????????*) fail "$1: a number is wanted, of nine digits at most" 2 ;;
    esac
}

while [ $# -gt 0 ]; do
    case $1 in
    --help | -h) usage && exit 0 ;;
    --output | --trace | --walk | --steps | --seed | --root) [ $# -gt 1 ] || fail "$1: a value is wanted" 2 ;;
    *) usage >&2 && exit 2 ;;
    esac
    case $1 in
    --output) output=$2 ;;
    --trace) wanted "$1" "$2" && seconds=$number ;;
    --walk) area=$2 ;;
    --steps) wanted "$1" "$2" && steps=$number ;;
    --seed) wanted "$1" "$2" && seed=$number ;;
    --root) root=${2%/} ;;
    esac
    shift 2
done

cma=sys/kernel/debug/cma
held=0
[ -n "$output" ] || fail "--output: a name is wanted" 2
[ ! -d "$output" ] || fail "$output: a directory; name a file"
file_of() {
    case $1 in
    /*) echo "$1" ;;
    *) echo "./$1" ;; # it may begin with a dash
    esac
}
base=$(file_of "${TMPDIR:-/tmp}/record.$$") dir=$base tries=0
until mkdir -m 700 "$dir" 2>/dev/null; do
    tries=$((tries + 1))
    if [ ! -e "$dir" ] || [ "$tries" -gt 99 ]; then
        fail "$dir: cannot be made; set TMPDIR to a directory with room"
    fi
    dir=$base.$tries
done
# the events as they were
untrace() {
    if [ "$traced" = 0 ]; then
        echo 0 >"$tracing/events/cma/enable"
    fi
    traced=''
}
finish() {
    if [ "$held" -gt 0 ]; then
        echo "$held" >"$root/$cma/$area/free"
    fi
    untrace
    rm -rf "$dir"
    [ -z "$part" ] || rm -f "$part"
}
# on_signal COMMAND: what to do then, besides setting $ended
on_signal() {
    # shellcheck disable=SC2064  # the command is known now
    trap "ended=130; $1" INT && trap "ended=143; $1" TERM HUP
}
trap finish EXIT
# shellcheck disable=SC2016  # and its status then
leave='exit $ended'
on_signal "$leave"

# save FILE…: copies of files below the root; what cannot be read is left out
save() {
    for path in "$@"; do
        path=${path#"$root/"}
        [ -f "$root/$path" ] || continue
        mkdir -p "$dir/${path%/*}"
        cat "$root/$path" >"$dir/$path" 2>/dev/null || rm -f "$dir/$path"
    done
}

# the value of a JSON string: lines become \n
json() {
    tr -d '\000-\010\013-\037' | sed 's/\\/\\\\/g; s/"/\\"/g; s/	/\\t/g; s/$/\\n/' | tr -d '\n'
}

# the errno that a message of cat or dd ends in, in the words of glibc, musl or bionic
errno_of() {
    case $1 in
    *'Cannot allocate memory' | *'Out of memory') echo 12 ;;
    *'Device or resource busy' | *'Resource busy') echo 16 ;;
    *'Invalid argument') echo 22 ;;
    *'Operation not permitted') echo 1 ;;
    *'Permission denied') echo 13 ;;
    *'Interrupted system call') echo 4 ;;
    *'No such file or directory') echo 2 ;;
    *) echo 5 ;;
    esac
}

read_back() {
    for name in "$@"; do
        text=$(json <"$root/$cma/$area/$name")
        printf '{"op": "R", "path": "/%s/%s/%s", "out": "%s", "errno": 0}\n' "$cma" "$area_json" "$name" "$text"
    done
}

# request FILE N: one write to alloc or free, and its answer; no signal leaves open whether it was made
request() {
    said=$(trap '' INT TERM HUP && printf '%s\n' "$2" | dd of="$root/$cma/$area/$1" bs=64 2>&1 | sed -n '/: .*: /p' | sed -n 1p)
    data=$(printf '%s\n' "$2" | json)
    printf '{"op": "W", "path": "/%s/%s/%s", "data": "%s", ' "$cma" "$area_json" "$1" "$data"
    if [ -z "$said" ]; then
        printf '"ret": %d, "errno": 0, "close": 0}\n' $((${#2} + 1))
        return 0
    fi
    printf '"ret": -1, "errno": %d, "close": 0}\n' "$(errno_of "$said")"
    return 1
}

# a number from 0 to $1 - 1
random() {
    seed=$(((seed * 1103515245 + 12345) % 2147483648))
    drawn=$((seed / 65536 % $1))
}

walk() {
    count=$(cat "$root/$cma/$area/count")
    bitmaps=bitmap
    if [ -d "$root/$cma/$area/ranges" ]; then
        bitmaps=$(cd "$root/$cma/$area" && echo ranges/*/bitmap)
    fi
    # shellcheck disable=SC2086  # several bitmaps are several words
    read_back count order_per_bit used maxchunk $bitmaps
    step=0
    on_signal : # what is held is known between two requests
    while [ "$step" -lt "$steps" ] && [ -z "$ended" ]; do
        step=$((step + 1))
        random 3
        if [ "$drawn" -eq 0 ] && [ "$held" -gt 0 ]; then
            random "$held"
            request free $((drawn + 1)) && held=$((held - drawn - 1))
        else
            random 2
            [ "$drawn" -eq 0 ] && most=16 || most=$((count / 2 + 1))
            random "$most"
            pages=$((drawn + 1))
            request alloc "$pages" && held=$((held + pages))
        fi
        read_back used maxchunk
        # shellcheck disable=SC2086
        [ $((step % 8)) -ne 0 ] || read_back $bitmaps
    done
    if [ "$held" -gt 0 ]; then
        request free "$held" && held=0
    fi
    on_signal "$leave"
    [ -z "$ended" ] || exit "$ended"
    # shellcheck disable=SC2086
    read_back used maxchunk $bitmaps
}

# a simulated board has its log there, and says who has which page
sim=${CMAFS_MOUNT:-$root}/sim
log() {
    if [ -f "$sim/dmesg" ]; then
        cat "$sim/dmesg"
    else
        dmesg
    fi 2>/dev/null
}

header() {
    release=$(sed -n 's/^Linux version \([^ ]*\).*/\1/p' "$root/proc/version")
    line=$(json <"$root/proc/cmdline")
    printf '{"header": {"name": "record", "kernel": "%s", "arch": "%s", ' "$release" "$(uname -m)"
    printf '"cmdline": "%s", "boot": [], "seed": %s}}\n' "${line%\\n}" "$seed"
}

tracing=$root/sys/kernel/tracing
[ -f "$tracing/trace" ] || tracing=$root/sys/kernel/debug/tracing
trace_on() {
    [ -n "$seconds" ] || return 0
    [ -f "$tracing/events/cma/enable" ] || fail "--trace: no events/cma in $tracing"
    traced=$(cat "$tracing/events/cma/enable")
    echo 1 >"$tracing/events/cma/enable" || fail "--trace: $tracing/events/cma/enable cannot be written"
}
trace_off() {
    [ -n "$seconds" ] || return 0
    [ -n "$area" ] || sleep "$seconds"
    cat "$tracing/trace" >"$dir/trace"
    untrace
}

if [ ! -d "$root/$cma" ]; then
    echo "record.sh: no $root/$cma: are you root, is debugfs mounted, CONFIG_CMA_DEBUGFS set?" >&2
fi
if [ -n "$area" ]; then
    [ -f "$root/$cma/$area/alloc" ] || fail "--walk: no area $area in $root/$cma"
    area_json=$(printf '%s\n' "$area" | json)
    area_json=${area_json%\\n}
fi

for file in "$root/$cma"/*/* "$root/$cma"/*/ranges/*/*; do
    case $file in
    */alloc | */free) ;;
    *) save "$file" ;;
    esac
done
save "$root"/sys/kernel/mm/cma/*/*
for name in meminfo vmstat iomem buddyinfo pagetypeinfo zoneinfo cmdline version config.gz; do
    save "proc/$name"
done
save sys/firmware/fdt "boot/config-$(uname -r)"
if [ -d "$root/sys/firmware/devicetree/base" ]; then
    find "$root/sys/firmware/devicetree/base" -type f | while IFS= read -r file; do
        save "$file"
    done
fi
if [ -f "$sim/map" ]; then
    mkdir "$dir/sim" && cp "$sim/map" "$sim/tasks" "$dir/sim"
fi
trace_on
if [ -n "$area" ]; then
    exec 3>&1 >"$dir/walk.jsonl"
    header
    walk
    exec >&3 3>&-
fi
trace_off
log >"$dir/dmesg"
{
    echo "format 1"
    uname -a
    date
} >"$dir/record.txt"
file=$(file_of "$output")
if [ -e "$file.part" ] || [ -L "$file.part" ]; then
    fail "$output.part: is there already; remove it"
fi
set -C # what somebody puts there now is not written through
{
    part=$file.part
    (cd "$dir" && tar -cf - .) >&4 || fail "$output: cannot be written"
} 4>"$file.part" || fail "$output: cannot be written"
mv "$part" "$file" || fail "$output: cannot be written"
part=''
echo "$output"
