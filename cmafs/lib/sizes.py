"""Sizes in bytes by their names. Kernel: ``include/linux/sizes.h``."""

SZ_1K = 1 << 10
SZ_4K = 4 << 10
SZ_128K = 128 << 10
SZ_256K = 256 << 10
SZ_1M = 1 << 20
SZ_2M = 2 << 20
SZ_16M = 16 << 20
SZ_32M = 32 << 20
SZ_128M = 128 << 20
SZ_256M = 256 << 20
SZ_1G = 1 << 30
SZ_4G = 4 << 30
SZ_64G = 64 << 30
SZ_1T = 1 << 40
SZ_64T = 64 << 40
