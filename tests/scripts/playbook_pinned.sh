#!/bin/sh
# Playbook "migration errors: a page is pinned" (seeds/000, Common problems): an area with free pages enough
# refuses, the log says that pages were busy, sim/tasks says whose; release them, allocate again.
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
sim=$CMAFS_MOUNT/sim
want=3000

say() { dmesg | grep "$1" | tail -n 1 | sed 's/^\[ *[0-9.]*\] //'; }
free_kib() { awk '/^MemFree/ { print $2 }' /proc/meminfo; }

# somebody's pages come to live in the area, since memory is nearly full, and a driver pins some of them
echo "spawn hog anon $(($(free_kib) - 20480))K" >"$sim/control"
echo "spawn camera tmpfs 12M" >"$sim/control"
echo "pin camera 2000" >"$sim/control"
echo "kill hog" >"$sim/control"
echo "spawn bystander anon 4M" >"$sim/control"

# the symptom
echo $want 2>/dev/null >"$dir/alloc" || echo "alloc $want: refused"
[ -e "$dir/maxchunk" ] && [ "$(cat "$dir/maxchunk")" -ge $want ] && echo "although the bitmap has room"

# the diagnosis: -16 is EBUSY; the article's kernel names the page
say 'alloc failed'
page=$(say 'is locked' | sed -n 's/.*page \(0x[0-9a-f]*\) is locked/\1/p')
tab=$(printf '\t')
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
echo $want >"$dir/alloc" && echo "alloc $want: done"
cat "$sim/verify"
