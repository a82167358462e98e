#!/bin/sh
# Playbook "migration errors: a page is pinned" (seeds/000, Common problems): an area with free pages enough
# refuses, the log says that pages were busy, sim/tasks says whose; release them, allocate again.
sim=$CMAFS_MOUNT/sim
tab=$(printf '\t')

say() { dmesg | grep "$1" | tail -n 1 | sed 's/^\[ *[0-9.]*\] //'; }
free_kib() { awk '/^MemFree/ { print $2 }' /proc/meminfo; }
total() { cat "$1/count" 2>/dev/null || cat "$1/size"; }
used() { # in pages; the article's file counts KiB
    if [ -e "$1/size" ]; then echo $(($(cat "$1/used") / 4)); else cat "$1/used"; fi
}

# the kernel takes all memory outside CMA, so that somebody's pages come to live in an area; a driver pins some
echo "spawn hog kernel 4K" >"$sim/control"
step=$(free_kib)
while [ "$step" -ge 256 ]; do
    echo "grow hog ${step}K" 2>/dev/null >"$sim/control" || step=$((step / 2))
done
echo "spawn camera tmpfs 8M" >"$sim/control"
echo "pin camera 1500" >"$sim/control"
echo "kill hog" >"$sim/control"
echo "spawn bystander anon 4M" >"$sim/control"

# the area is the one in which pages of the camera are
for candidate in /sys/kernel/debug/cma/*; do
    base=$(cat "$candidate/base_pfn")
    end=$((base + $(total "$candidate")))
    # words, not lines, are wanted: the ranges of the task
    # shellcheck disable=SC2013
    for range in $(awk '$1 == "camera" { gsub(",", " ", $7); print $7 }' "$sim/tasks"); do
        pfn=$((${range%-*}))
        if [ $pfn -ge "$base" ] && [ $pfn -lt $end ]; then dir=$candidate; fi
    done
done
want=$(($(total "$dir") - $(used "$dir")))

# the symptom
if echo $want 2>/dev/null >"$dir/alloc"; then
    echo "alloc: done"
else
    echo "alloc of all free pages: refused"
    [ -e "$dir/maxchunk" ] && [ "$(cat "$dir/maxchunk")" -ge $want ] && echo "although the bitmap has room"
fi

# the diagnosis: -16 is EBUSY; the article's kernel names the page
say 'alloc failed'
page=$(say 'is locked' | sed -n 's/.*page \(0x[0-9a-f]*\) is locked/\1/p')
while IFS=$tab read -r name _ _ cma pinned _ ranges; do
    [ "$name" != NAME ] || continue
    if [ "$pinned" -eq 0 ] || [ "$cma" -eq 0 ]; then continue; fi
    echo "pinned, with pages in the area: $name"
    suspect=$name
    [ -n "$page" ] || continue
    for range in $(echo "$ranges" | tr ',' ' '); do
        case $range in
        +*) ;;
        *) [ $((${range%-*})) -le $((page)) ] && [ $((page)) -le $((${range#*-})) ] && echo "the page of the log is its" ;;
        esac
    done
done <"$sim/tasks"

# the cure
echo "unpin $suspect" >"$sim/control" && echo "released"
echo $want >"$dir/alloc" && echo "alloc: done"
cat "$sim/verify"
