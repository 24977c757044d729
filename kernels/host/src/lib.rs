//! The CUDA kernels compiled as plain C++ (`kernels/cuda/host.cpp`): tests run the very bodies that a GPU runs, thread
//! after thread. Nothing that Millrace ships depends on this crate.
#![allow(unsafe_code, reason = "a C function, and kernels that take addresses")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};

unsafe extern "C" {
    fn millrace_host_launch(
        kernel_name: *const c_char,
        grid: *const c_uint,
        block: *const c_uint,
        args: *mut *mut c_void,
    ) -> c_int;
}

/// Runs a kernel to its end. `false`: there is none of that name.
///
/// # Safety
/// `args` points to as many pointers as the kernel has parameters, each to a value of its type; and every address in
/// them is of memory of this process as long as the kernel takes it to be.
pub unsafe fn launch(name: &str, grid: [u32; 3], block: [u32; 3], args: *mut *mut c_void) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name ends with a zero, grid and block are three numbers each; the arguments are the caller's contract.
    unsafe { millrace_host_launch(name.as_ptr(), grid.as_ptr(), block.as_ptr(), args) == 0 }
}
