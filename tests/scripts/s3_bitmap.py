"""S3: decode the bitmap's words into ranges of pages in use and check them against `used` and `maxchunk`."""

import glob
from itertools import groupby

for area in sorted(glob.glob("/sys/kernel/debug/cma/*")):

    def value(name):
        return int(open(f"{area}/{name}").read())

    order, count = value("order_per_bit"), value("count")
    words = [int(word) for word in open(f"{area}/bitmap").read().split()]
    bits = [words[i // 32] >> (i % 32) & 1 for i in range(count >> order)]
    runs, start = [], 0
    for bit, group in groupby(bits):
        length = len(list(group))
        runs.append((bit, start << order, length << order))
        start += length
    used = sum(length for bit, _, length in runs if bit)
    holes = [length for bit, _, length in runs if not bit]
    print(area.split("/")[-1], "used", used == value("used"), "maxchunk", max(holes) == value("maxchunk"))
    print(" ".join(f"{first}+{length}" for bit, first, length in runs if bit))
