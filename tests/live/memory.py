"""A limit on the memory of a graph's nodes, by a control group: what allocates more is killed by the kernel."""

import os

ROOT = "/sys/fs/cgroup"
FEW_BYTES = 4 << 20


class Limit:
    """From now on the processes of `programs` that run have a few MiB more together, until `close`. Those that are started meanwhile are not
    limited. Needs a control group's memory controller, of version 1 or 2, that this user may write to."""

    def __init__(self, programs):
        version_1 = os.path.isdir(os.path.join(ROOT, "memory"))
        self.above = os.path.join(ROOT, "memory") if version_1 else ROOT
        self.folder = os.path.join(self.above, f"millrace-soak-{os.getpid()}")
        self.limit, self.none = ("memory.limit_in_bytes", "-1") if version_1 else ("memory.max", "max")
        os.makedirs(self.folder, exist_ok=True)
        for pid in running(programs):
            put(self.folder, "cgroup.procs", pid)
        put(self.folder, self.limit, FEW_BYTES)

    def close(self):
        put(self.folder, self.limit, self.none)
        with open(os.path.join(self.folder, "cgroup.procs")) as file:
            left = file.read().split()
        for pid in left:
            put(self.above, "cgroup.procs", pid)
        os.rmdir(self.folder)


def running(programs):
    """Processes of the nodes in a folder of programs."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if os.path.dirname(program) == os.path.realpath(programs) and os.path.basename(program) != "millrace":
            yield pid


def put(folder, name, value):
    try:
        with open(os.path.join(folder, name), "w") as file:
            file.write(str(value))
    except ProcessLookupError:
        pass  # it has ended meanwhile


def is_there():
    """Whether memory can be limited here."""
    above = os.path.join(ROOT, "memory") if os.path.isdir(os.path.join(ROOT, "memory")) else ROOT
    return os.access(os.path.join(above, "cgroup.procs"), os.W_OK)
