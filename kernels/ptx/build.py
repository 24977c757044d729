#!/usr/bin/env python3
"""Compiles kernels/cuda to PTX: kernels/ptx/*.ptx, which are committed and built into the program.

  build.py             writes them
  build.py --check     says whether they are what the sources give; exits 1 where not
  build.py --tune FOLDER
                       writes variants of the f16 NCHW kernels, for kernels/examples/gpu_kernels.rs --variants FOLDER

  build.py --package   prints what it needs from PyPI

Needs NVRTC of exactly the version below from PyPI (python3 -m pip install --target FOLDER PACKAGE), in the folder that
MILLRACE_NVRTC names, target/tools/nvrtc where it names none. No GPU and no driver.
"""
import ctypes
import itertools
import os
import pathlib
import sys

# CUDA 12.0: its PTX (8.0) is read by every driver since 525, the oldest one that runtime/cuda works with
PACKAGE = "nvidia-cuda-nvrtc-cu12==12.0.140"
# Turing, the oldest GPU with a driver of that age whose NVDEC we use; a newer GPU's driver compiles for itself
ARCHITECTURE = "compute_75"

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = HERE.parent / "cuda"
OPTIONS = [f"--gpu-architecture={ARCHITECTURE}", "--std=c++17", "--fmad=false"]


def nvrtc():
    folder = pathlib.Path(os.environ.get("MILLRACE_NVRTC", HERE.parents[1] / "target/tools/nvrtc"))
    libraries = folder / "nvidia/cuda_nvrtc/lib"
    found = sorted(libraries.glob("libnvrtc-builtins.so.*")) + sorted(libraries.glob("libnvrtc.so.*"))
    if len(found) != 2:
        sys.exit(f"no NVRTC in {folder}: python3 -m pip install --target {folder} {PACKAGE}")
    # the second one looks for the first by name, which the loader finds only when it is loaded already
    ctypes.CDLL(str(found[0]), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(found[1]))
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    expected = PACKAGE.split("==")[1].split(".")[:2]
    if [str(major.value), str(minor.value)] != expected:
        sys.exit(f"{found[1]} is NVRTC {major.value}.{minor.value}; another one writes other PTX; install {PACKAGE}")
    return library


def text_of(library, program, size, get):
    length = ctypes.c_size_t()
    getattr(library, size)(program, ctypes.byref(length))
    text = ctypes.create_string_buffer(length.value)
    getattr(library, get)(program, text)
    return text.value.decode()


def compile_ptx(library, *defines, name="kernels.cu"):
    names = sorted(path.name for path in SOURCES.glob("*.cuh"))
    headers = (ctypes.c_char_p * len(names))(*[(SOURCES / name).read_bytes() for name in names])
    header_names = (ctypes.c_char_p * len(names))(*[name.encode() for name in names])
    source = (SOURCES / name).read_bytes()
    options = [option.encode() for option in [*OPTIONS, *(f"--define-macro={define}" for define in defines)]]
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(
        ctypes.byref(program), source, name.encode(), len(names), headers, header_names)
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = text_of(library, program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
    if log.strip():
        print(log.strip(), file=sys.stderr)
    if status != 0:
        sys.exit(f"NVRTC status {status}")
    return text_of(library, program, "nvrtcGetPTXSize", "nvrtcGetPTX")


def main(arguments):
    if arguments == ["--package"]:
        print(PACKAGE)
        return 0
    library = nvrtc()
    if arguments[:1] == ["--tune"] and len(arguments) == 2:
        folder = pathlib.Path(arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        for pixels, rows, at_once, blocks in itertools.product((2, 4), (1, 2, 4), (1, 2), (3, 4, 5)):
            if at_once <= rows:
                ptx = compile_ptx(
                    library, f"CHOSEN(X)=X(millrace_f16_nchw, MIN_BLOCKS, (convert<F16, true, {pixels}, {rows}>))",
                    f"NV12_ROWS_AT_ONCE={at_once}", f"MIN_BLOCKS={blocks}")
                (folder / f"millrace_f16_nchw-p{pixels}r{rows}y1u{at_once}b{blocks}.ptx").write_text(ptx)
        for pixels, blocks in itertools.product((4, 8), (2, 3, 4, 5, 6)):
            ptx = compile_ptx(
                library, "CHOSEN(X)=X(millrace_f16_nchw_by3, MIN_BLOCKS, (whole<F16, true, 3>))",
                f"WHOLE_PIXELS={pixels}", f"MIN_BLOCKS={blocks}")
            (folder / f"millrace_f16_nchw_by3-p{pixels}r2y4b{blocks}.ptx").write_text(ptx)
        return 0
    if arguments not in ([], ["--check"]):
        sys.exit(__doc__)
    status = 0
    texts = {name: compile_ptx(library, f"CHOSEN(X)=KERNELS_{name.upper()}(X)") for name in ("f32", "f16", "u8")}
    texts |= {name: compile_ptx(library, name=f"{name}.cu") for name in ("candidates", "turn")}
    for name, ptx in texts.items():
        path = HERE / f"{name}.ptx"
        if not arguments:
            path.write_text(ptx)
        elif not path.exists() or path.read_text() != ptx:
            print(f"{path} is not what kernels/cuda gives: run kernels/ptx/build.py", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
