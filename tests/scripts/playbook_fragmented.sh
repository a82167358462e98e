#!/bin/sh
# Playbook "allocation fails: the pool is fragmented" (seeds/000, Common problems). Enough pages are free, but
# not side by side. There are two places where this happens, and each has its own cure:
# - the area itself, among drivers' buffers: nobody may move those. Compaction does nothing; a buffer must go;
# - ordinary memory, among pages of processes: `echo 1 > /proc/sys/vm/compact_memory` moves them together.
control=$CMAFS_MOUNT/sim/control

total() { cat "$1/count" 2>/dev/null || cat "$1/size"; }
used() { # in pages; the article's file counts KiB
    if [ -e "$1/size" ]; then echo $(($(cat "$1/used") / 4)); else cat "$1/used"; fi
}
free_pages() { echo $(($(total "$dir") - $(used "$dir"))); }
device() { # alloc or free, so many pages
    echo "dma_$1 cma_test $(($2 * 4))K" >"$control"
}
blocks() { # free blocks of 2 MiB and more
    awk '{ for (i = 14; i <= NF; i++) n += $i * (i - 13) } END { print n }' /proc/buddyinfo
}
try() {
    if echo $want 2>/dev/null >"$dir/alloc"; then echo "alloc: done"; else echo "alloc: refused"; fi
}

echo "-- the area"
# the area that serves the device: the one of which it takes pages
for candidate in /sys/kernel/debug/cma/*; do
    before=$(used "$candidate")
    device alloc 256
    if [ "$(used "$candidate")" -gt "$before" ]; then dir=$candidate; fi
    device free 256
done
# fill it but for 15 parts; three buffers take 5, 1 and 6 of these; the first goes again
part=$(($(free_pages) / 15 / 256 * 256))
want=$((6 * part))
fill=$(($(free_pages) - 15 * part))
[ $fill -eq 0 ] || echo $fill >"$dir/alloc"
device alloc $((5 * part))
device alloc $part
device alloc $((6 * part))
device free $((5 * part))
try
[ "$(free_pages)" -ge $want ] && echo "enough pages are free"
echo 1 >/proc/sys/vm/compact_memory
echo "compacted"
try
device free $part
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
