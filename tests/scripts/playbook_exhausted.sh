#!/bin/sh
# Playbook "allocation fails: the pool is exhausted" (seeds/000, Common problems): see that nothing is left,
# find out from the log that this is why, give something back, allocate again.
dir=$(echo /sys/kernel/debug/cma/* | cut -d' ' -f1)
want=256

total() { cat "$dir/count" 2>/dev/null || cat "$dir/size"; }
used() { # in pages; the article's file counts KiB
    if [ -e "$dir/size" ]; then echo $(($(cat "$dir/used") / 4)); else cat "$dir/used"; fi
}
release() { # the newest pages; the article's files can only release all
    if [ -e "$dir/free" ]; then echo "$1" >"$dir/free"; else echo 0 >"$dir/alloc"; fi
}
say() { dmesg | grep "$1" | tail -n 1 | sed 's/^\[ *[0-9.]*\] //'; }

# somebody takes all of it
while echo 64 >"$dir/alloc"; do :; done 2>/dev/null
while echo 1 >"$dir/alloc"; do :; done 2>/dev/null

# the symptom
echo $want 2>/dev/null >"$dir/alloc" || echo "alloc $want: refused"

# the diagnosis: size and used; the log says that no hole was large enough
echo "free pages: $(($(total) - $(used)))"
say 'alloc failed'

# the cure; a few pages more, since `free` takes part of an allocation from its front, which leaves a gap
release $((want + 64))
[ $(($(total) - $(used))) -ge $want ] && echo "released"
echo $want >"$dir/alloc" && echo "alloc $want: done"
