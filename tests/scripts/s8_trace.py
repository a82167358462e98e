"""S8: parse the tracer's text; the fields of cma_alloc and cma_release changed from kernel to kernel."""

import glob
import re

TRACING = "/sys/kernel/debug/tracing"
LINE = re.compile(
    r"^\s*(?P<task>.+)-(?P<pid>\d+)\s+\[(?P<cpu>\d+)\]\s+\S{4,5}\s+(?P<stamp>\d+\.\d+): (?P<event>\w+): (?P<rest>.*)$"
)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


area = sorted(glob.glob("/sys/kernel/debug/cma/*"))[0]
write(f"{TRACING}/events/cma/enable", "1\n")
write(f"{TRACING}/trace", "")
write(f"{area}/alloc", "48\n")
write(f"{area}/free", "48\n")
write(f"{TRACING}/tracing_on", "0\n")
for line in open(f"{TRACING}/trace"):
    if line.startswith("#"):
        continue
    match = LINE.match(line)
    assert match, line
    fields = dict(pair.split("=", 1) for pair in re.findall(r"\w+=\S+", match["rest"]))
    print(match["event"], fields.get("name", "-"), fields.get("count") or fields["request_count"])
