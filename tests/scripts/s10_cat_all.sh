#!/bin/sh
# S10: show everything that can be shown.
find -L /sys/kernel/debug/cma /sys/kernel/mm/cma -type f 2>/dev/null | sort | while read -r file; do
    if text=$(cat "$file" 2>&1); then
        echo "${file#/sys/kernel/}: $(echo "$text" | head -c 12 | head -n 1)"
    else
        echo "${file#/sys/kernel/}: ${text##*: }"
    fi
done
