"""As an RK3566 NPU explorer: print every regular file of every area; what must not be read is skipped."""

import errno
import os

ROOT = "/sys/kernel/debug/cma"
for area in sorted(os.listdir(ROOT)):
    for name in sorted(os.listdir(os.path.join(ROOT, area))):
        path = os.path.join(ROOT, area, name)
        if not os.path.isfile(path):
            continue
        try:
            with open(path) as file:
                words = file.read().split()
        except OSError as error:
            print(f"{name}: {errno.errorcode[error.errno]}")
        else:
            print(f"{name}: {words[0] if len(words) == 1 else f'{len(words)} words'}")
