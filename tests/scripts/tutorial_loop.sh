#!/bin/sh
# As a tutorial on of_reserved_mem: how much of each area is in use.
for area in /sys/kernel/debug/cma/*/; do
    name=$(basename "$area")
    echo "$name: used=$(cat "${area}used") count=$(cat "${area}count")"
done
