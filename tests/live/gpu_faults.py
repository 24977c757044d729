#!/usr/bin/env python3
"""Faults of a GPU, done by another process: usage: gpu_faults.py memory SECONDS | fault

memory  takes all of the first GPU's memory, by plain allocations, for so long
fault   runs a kernel that writes to no address. Under CUDA's MPS the driver then ends the contexts of all processes that share the GPU

Calls the driver (cuda.h) by itself. Exit code 0 when it was done.
"""

import ctypes
import sys
import time

LEAST_BYTES = 2 << 20
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
PTX = b""".version 6.0
.target sm_50
.address_size 64
.visible .entry fault() {
    .reg .u64 %a;
    mov.u64 %a, 16;
    st.global.u64 [%a], %a;
    ret;
}
"""


class Driver:
    """The first GPU, with a context."""

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuCtxCreate_v2", ctypes.byref(context), 0, device)

    def call(self, name, *arguments):
        if code := getattr(self.cuda, name)(*arguments):
            raise SystemExit(f"{name}: error {code} of the driver")

    def take_all(self):
        """Gives how many bytes were to be had, in ever smaller pieces."""
        taken, piece, address = 0, 1 << 36, ctypes.c_uint64()
        while piece >= LEAST_BYTES:
            code = self.cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(piece))
            if code not in (0, OUT_OF_MEMORY):
                raise SystemExit(f"cuMemAlloc: error {code} of the driver")
            taken, piece = (taken, piece // 2) if code else (taken + piece, piece)
        return taken

    def fault(self):
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), PTX)
        self.call("cuModuleGetFunction", ctypes.byref(function), module, b"fault")
        self.call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, None, None)
        return self.cuda.cuCtxSynchronize()


def main():
    if sys.argv[1:] == ["fault"]:
        code = Driver().fault()
        print(f"the kernel ended with error {code} of the driver")
        return 0 if code else "the kernel did no harm"
    if sys.argv[1:2] == ["memory"] and len(sys.argv) == 3:
        driver = Driver()
        print(f"{driver.take_all()} bytes are taken", flush=True)
        time.sleep(float(sys.argv[2]))
        return 0
    return __doc__


if __name__ == "__main__":
    sys.exit(main())
