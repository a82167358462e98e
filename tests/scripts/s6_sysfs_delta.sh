#!/bin/sh
# S6: the counters in sysfs count what debugfs did.
# shellcheck disable=SC2012,SC2046  # as such scripts are written
[ -d /sys/kernel/mm/cma ] || { echo "no counters"; exit 0; }
area=$(ls /sys/kernel/mm/cma | head -n 1)
counters() { (cd "/sys/kernel/mm/cma/$area" && cat alloc_pages_success alloc_pages_fail) | tr '\n' ' '; }
set -- $(counters)
echo 100 >"/sys/kernel/debug/cma/$area/alloc"
echo 4090 2>/dev/null >"/sys/kernel/debug/cma/$area/alloc"
success=$1 fail=$2
set -- $(counters)
echo "success +$(($1 - success)) fail +$(($2 - fail))"
