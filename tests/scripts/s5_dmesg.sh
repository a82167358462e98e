#!/bin/sh
# S5: what the log says about a failure and, where this kernel says it, about a success.
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
dmesg -c >/dev/null
echo 16 >"$dir/alloc"
echo 1000000 2>/dev/null >"$dir/alloc"
echo 4090 2>/dev/null >"$dir/alloc"
dmesg | grep 'alloc failed' | sed 's/^\[ *[0-9.]*\] //'
echo "returned: $(dmesg | grep returned | grep -vc -e null -e 0000000000000000)"
dmesg -C
dmesg | wc -l
