#!/bin/sh
# As the "CMA info" section of a Pixel's dumpstate.
# shellcheck disable=SC2045,SC2086  # as such scripts are written
for d in $(ls -d /d/cma/*); do
    echo --- $d
    echo --- count
    cat $d/count
    echo --- used
    cat $d/used
    echo --- bitmap
    cat $d/bitmap
done
