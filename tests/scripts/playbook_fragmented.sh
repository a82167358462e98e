#!/bin/sh
# Playbook "allocation fails: the pool is fragmented" (seeds/000, Common problems). Enough pages are free, but
# not side by side. There are two places where this happens, and each has its own cure:
# - the area itself, among drivers' buffers: nobody may move those. Compaction does nothing; a buffer must go;
# - ordinary memory, among pages of processes: `echo 1 > /proc/sys/vm/compact_memory` moves them together.
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
control=$CMAFS_MOUNT/sim/control
want=1536

total() { cat "$dir/count" 2>/dev/null || cat "$dir/size"; }
used() {
    if [ -e "$dir/size" ]; then echo $(($(cat "$dir/used") / 4)); else cat "$dir/used"; fi
}
blocks() { # free blocks of 2 MiB and more
    awk '{ for (i = 14; i <= NF; i++) n += $i * (i - 13) } END { print n }' /proc/buddyinfo
}
try() {
    if echo $want 2>/dev/null >"$dir/alloc"; then echo "alloc $want: done"; else echo "alloc $want: refused"; fi
}

echo "-- the area"
printf 'dma_alloc cma_test 5M\ndma_alloc cma_test 1M\ndma_alloc cma_test 6M\ndma_free cma_test 5M\n' >"$control"
try
[ $(($(total) - $(used))) -ge $want ] && echo "enough pages are free"
echo 1 >/proc/sys/vm/compact_memory
echo "compacted"
try
echo "dma_free cma_test 1M" >"$control"
echo "the buffer between two holes released"
try

echo "-- ordinary memory"
echo "spawn even anon 64K" >"$control"
echo "spawn odd anon 64K" >"$control"
i=0
while [ $i -lt 400 ]; do
    printf 'grow even 64K\ngrow odd 64K\n'
    i=$((i + 1))
done >"$control"
before=$(blocks)
echo "kill odd" >"$control" # leaves holes of 64 KiB
[ "$(blocks)" -le $((before + 1)) ] && echo "killed: no more large blocks than before"
holes=$(blocks)
echo 1 >/proc/sys/vm/compact_memory
[ "$(blocks)" -ge $((holes + 10)) ] && echo "compacted: large blocks again"
cat "$CMAFS_MOUNT/sim/verify"
