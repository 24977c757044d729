"""CUDA's MPS: a server through which the processes of one user share a context of the GPU, and which can leave them a part of its
multiprocessors alone."""
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from lib.suite import Failed

CONTROL = "nvidia-cuda-mps-control"


@contextlib.contextmanager
def mps(percent=None):
    """Runs a server of its own; gives the environment of its clients. `percent`: their share of the multiprocessors."""
    if not shutil.which(CONTROL):
        raise Failed(f"missing: {CONTROL}, which comes with the driver")
    # a socket's path may have 107 bytes
    with tempfile.TemporaryDirectory(prefix="mps-", dir="/tmp") as folder:
        where = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = {**os.environ, **where}
        started = subprocess.run([CONTROL, "-d"], env=environment, capture_output=True, text=True)
        if started.returncode != 0:
            raise Failed(f"{CONTROL} -d: exit code {started.returncode}: {started.stderr.strip()}")
        try:
            yield {**where, **({"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(percent)} if percent else {})}
            log = pathlib.Path(folder) / "server.log"
            # without a client there is no such file: then the graphs ran beside the server
            if not log.exists():
                raise Failed("no process used the server of MPS")
        finally:
            subprocess.run([CONTROL], input="quit\n", env=environment, capture_output=True, text=True, timeout=60)
