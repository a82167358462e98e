#!/system/bin/sh
# As a Qualcomm CMA stress script; PAUSE is `sleep 5` there.
# shellcheck disable=SC2012,SC2086,SC2046,SC2003  # as such scripts are written
PAUSE=${PAUSE:-sleep 5}
if [ -f /d/cma/cma-2/alloc ]; then
    dir=/d/cma/cma-2
elif [ -f /d/cma/cma-linux,cma/alloc ]; then
    dir=/d/cma/cma-linux,cma
elif [ -f /d/cma/cma-secure_regi/alloc ]; then
    dir=/d/cma/cma-secure_regi
else
    dir=$(ls -d /d/cma/* | head -n 1)
fi
start=$(cat $dir/used)
total=$(cat $dir/count)
max=2304
echo 3 > /proc/sys/vm/drop_caches
echo 1 > /sys/kernel/debug/tracing/events/cma/enable
[ -d /sys/kernel/debug/tracing/events/migrate ] && echo 1 > /sys/kernel/debug/tracing/events/migrate/enable
if [ $total -le $(expr $start + $max) ]; then
    echo "not enough CMA: $total"
    exit 1
fi
for j in 1 2 3 4 5 6 7 8 9; do
    N=$(expr $j \* 256)
    echo $N > $dir/alloc
    used=$(cat $dir/used)
    [ $used -eq $(expr $start + $N) ] || { echo "alloc $N: used $used"; exit 1; }
    $PAUSE
    echo $N > $dir/free
    used=$(cat $dir/used)
    [ $used -eq $start ] || { echo "free $N: used $used"; exit 1; }
    echo "$j MB ok"
done
cat /sys/kernel/debug/tracing/trace > ${TRACE:-/data/local/tmp/cma_trace.txt}
