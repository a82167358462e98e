#!/bin/sh
# S9: find an area whatever this kernel calls it, and its base wherever it is.
for name in cma-0 cma-reserved reserved; do
    dir=/sys/kernel/debug/cma/$name
    [ -d "$dir" ] && break
done
base=$dir/base_pfn
[ -L "$base" ] && base=$dir/ranges/0/base_pfn
echo "$name ${base#"$dir"/}"
[ "$(cat "$base")" = "$(cat "$dir/base_pfn")" ] && echo same
find "$dir" -type f -name 'b*' | sed "s,$dir/,," | sort
