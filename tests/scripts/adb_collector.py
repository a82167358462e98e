"""As Qualcomm's adb collectors: `grep .` over the glob gives path:value, value * 4 is kB."""

import subprocess

output = subprocess.run(
    "grep . /sys/kernel/debug/cma/*/used", shell=True, capture_output=True, text=True, check=True
)
# grep names the file only where the glob gave it several
for line in output.stdout.splitlines():
    path, _, text = line.rpartition(":")
    area = path.split("/")[-2] if path else "only"
    print(f"{area} {int(text) * 4} kB")
