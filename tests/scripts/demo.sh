#!/bin/bash
# `make demo`: five machines, each mounted and used with nothing but echo, cat, grep, hexdump.
#
#   1. a 6.12 board            its default area from the device tree: allocate, look, fail, read why, free
#   2. seeds/003               a 4.15 PC with cma=1G@1-2G: boot log, meminfo, echo 102400 > alloc, dmesg -c
#   3. seeds/000               the article's files: size, used in KiB, a raw bitmap, echo 0 > alloc
#   4. seeds/002               the test module: echo 0 > dev/cma_test, cat dev/cma_test
#   5. seeds/001               the framework of 2010: a region for video and camera, one for all others
#
# bash, because its echo names the errno of a failed write. Every line that starts with `# ` is a command that is
# run as printed; what follows is what it printed.
set -eu

top=$(mktemp -d "${TMPDIR:-/tmp}/cmafs-demo.XXXXXX")
mnt=$top/mnt
mkdir "$mnt"
finish() {
    cd /
    cmafs umount "$mnt" 2>/dev/null || cmafs umount -l "$mnt" 2>/dev/null || :
    rm -f "$top/errors"
    rmdir "$mnt" "$top"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

title() { printf '\n=== %s\n' "$*"; }
# Show a command, run it as it stands, show its errors as an interactive shell would; a failure is part of the show.
show() {
    printf '# %s\n' "$1"
    eval "$1" 2>"$top/errors" || :
    sed -E 's/^[^ ]+: line [0-9]+: /bash: /' "$top/errors"
}
# Mount a machine and stand in its root, so that paths read as on the board.
boot() {
    cd /
    printf '$ cmafs mount'
    for word; do
        case $word in
        *[!A-Za-z0-9_=,./-]*) printf " '%s'" "$word" ;;
        *) printf ' %s' "$word" ;;
        esac
    done
    printf ' mnt && cd mnt\n'
    cmafs mount "$@" "$mnt"
    cd "$mnt"
}
halt() {
    cd /
    cmafs umount "$mnt"
}

title 'a 6.12 board: NXP i.MX8M Mini'
boot --dts imx8mm --kernel 6.12
show 'cmafs dmesg . | grep -i cma'
show 'cd sys/kernel/debug/cma/linux,cma; ls'
show 'grep . base_pfn count order_per_bit used maxchunk'
show 'grep Cma ../../../../../proc/meminfo'
show 'echo 1024 > alloc; cat used maxchunk'
show 'echo 65536 > alloc; cat used maxchunk'
show 'echo 200000 > alloc'
show 'cut -c1-60 bitmap'
show 'echo 512 > free; cat used maxchunk'
show 'echo 100000 > alloc'
show 'cmafs dmesg ../../../../.. | tail -n 2'
show 'grep Cma ../../../../../proc/meminfo'
halt

title 'seeds/003: a 4.15 PC booted with cma=1G@1-2G'
boot --dts x86-4g --kernel 4.15
show 'cmafs dmesg . | grep cma'
show 'cat proc/meminfo | grep Cma'
show 'cmafs dmesg . -c > /dev/null'
show 'cd sys/kernel/debug/cma/cma-reserved'
show 'cat ../../../../../proc/meminfo | grep Cma'
show 'echo 102400 > alloc'
show 'cat ../../../../../proc/meminfo | grep Cma'
show 'cmafs dmesg ../../../../.. -c'
show 'echo 102400 > free'
show 'cmafs dmesg ../../../../.. -c'
halt

title 'seeds/000: the article, on its second board (1 GiB at 0x80000000)'
boot --dts article-2 --kernel article
show 'ls sys/kernel/debug/cma/'
show 'ls sys/kernel/debug/cma/cma-0'
show 'cd sys/kernel/debug/cma/cma-0; cat base_pfn size used'
show 'echo 1024 > alloc'
show 'cat used'
show 'hexdump -C bitmap'
show 'echo 0 > alloc'
show 'cat used'
show 'hexdump -C bitmap'
halt

title 'seeds/002: the test module, on the board of the recorded kernels'
boot --dts virt --kernel 6.12 --cmdline cma=64M
show 'cat sys/kernel/debug/cma/reserved/used'
show 'echo 0 > dev/cma_test; echo 0 > dev/cma_test'
show 'cat sys/kernel/debug/cma/reserved/used'
show 'cat sim/devices/cma_test'
show 'cat dev/cma_test'
show 'cat sys/kernel/debug/cma/reserved/used'
show 'cmafs dmesg . | grep cma_test'
halt

title 'seeds/001: the framework of 2010, video and camera in 20 MB, all others in 5 MB'
boot --kernel 2010 --arch arm --cmdline 'cma=region=20M;common=5M cma.map=video,camera=region;*=common'
show 'cmafs dmesg . | grep cma:'
show 'cd sys/kernel/mm/contiguous; cat map allocators'
show 'grep . regions/region/* regions/common/*'
show 'echo "*=region" > map'
show 'echo nonsense > map'
show 'cat map'
show 'cmafs dmesg ../../../.. | tail -n 1'
halt

printf '\nThat was all: five machines, mounted, used and unmounted. README.md says how to use your own.\n'
