"""What a real board shows of itself, read from its files or a capture of them."""

#: Where sysfs has its counters of areas.
SYSFS = "sys/kernel/mm/cma"
