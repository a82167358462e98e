#!/bin/bash
# As two bash test libraries: sudo bash -c to write, dmesg to count what was returned, awk for the latency.
# shellcheck disable=SC2012  # as such scripts are written
dir=$(ls -d /sys/kernel/debug/cma/* | head -n 1)

cma_alloc() { sudo bash -c "echo $1 > $dir/alloc"; }
cma_free() { sudo bash -c "echo $1 > $dir/free"; }

returned() { dmesg | grep cma | grep returned | grep -v null | grep -cv 0000000000000000; }

wait_for_used() {
    for _ in 1 2 3; do
        [ "$(cat "$dir/used")" -eq "$1" ] && return 0
        sleep 0.05
    done
    return 1
}

before=$(returned)
start=$(cat "$dir/used")
for n in 1 16 64; do
    cma_alloc $n || exit 1
done
wait_for_used $((start + 81)) || exit 1
echo "returned: $(($(returned) - before))"
dmesg | grep cma | awk -F'[][]' '/returned/ { if (n++ && $2 + 0 < last) bad = 1; last = $2 + 0 } END { print bad ? "clock went back" : "latency ok" }'
cma_free 81
wait_for_used "$start" && echo "freed"
