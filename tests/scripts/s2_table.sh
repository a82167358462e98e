#!/bin/sh
# S2: a table of the areas, with arithmetic.
printf '%-16s %8s %8s %5s %s\n' AREA COUNT USED USE% BASE
for area in /sys/kernel/debug/cma/*; do
    count=$(cat "$area/count") used=$(cat "$area/used")
    printf '%-16s %8d %8d %4d%% 0x%x\n' "${area##*/}" "$count" "$used" $((used * 100 / count)) \
        $(($(cat "$area/base_pfn") * 4096))
done
