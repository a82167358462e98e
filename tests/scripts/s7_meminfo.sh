#!/bin/sh
# S7: a sampler of /proc/meminfo.
sample() { awk '/^CmaTotal:/ { total = $2 } /^CmaFree:/ { free = $2 } END { print total - free }' /proc/meminfo; }
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
before=$(sample)
echo 512 >"$dir/alloc"
during=$(sample)
echo 512 >"$dir/free"
after=$(sample)
echo "+$((during - before)) kB, then $((after - before))"
grep -c '^Cma' /proc/meminfo
