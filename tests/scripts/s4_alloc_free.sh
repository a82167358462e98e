#!/bin/sh
# S4: allocate, check, free, check; an error from any step ends the script.
set -e
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
start=$(cat "$dir/used")
for n in 1 7 64 1000; do
    echo "$n" >"$dir/alloc"
    [ "$(cat "$dir/used")" -eq $((start + n)) ]
    echo "$n" >"$dir/free"
    [ "$(cat "$dir/used")" -eq "$start" ]
done
if echo 1048576 2>/dev/null >"$dir/alloc"; then
    echo "that cannot be"
    exit 1
fi
echo "all steps ok"
