#!/bin/sh
# Names that documents mention and no kernel has.
# shellcheck disable=SC2012,SC2002  # as such scripts are written
cd /sys/kernel/debug/cma || exit 1
area=$(ls | head -n 1)
for path in $area/used_bytes $area/alloc_count $area/fail_count $area/alloc_bytes cma-reserved/size; do
    cat "$path" 2>&1
done
cat ./* 2>&1
cat "/sys/kernel/mm/cma/$area/free_pages" 2>&1 | sed "s/$area/AREA/"
