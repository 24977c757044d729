//! Status codes and their texts.

use crate::put;
use std::ffi::{CStr, c_char};

pub(crate) type StatusCode = u32;

macro_rules! codes {
    ($($name:ident = $code:literal, $symbol:literal, $text:literal;)*) => {
        $(#[allow(dead_code, reason = "some have only a text")] pub(crate) const $name: StatusCode = $code;)*
        const TEXTS: &[(StatusCode, &CStr, &CStr)] = &[$(($code, $symbol, $text)),*];
    };
}

codes! {
    SUCCESS = 0, c"CUDA_SUCCESS", c"no error";
    INVALID_VALUE = 1, c"CUDA_ERROR_INVALID_VALUE", c"invalid argument";
    OUT_OF_MEMORY = 2, c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory";
    NOT_INITIALIZED = 3, c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error";
    INVALID_DEVICE = 101, c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal";
    INVALID_CONTEXT = 201, c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context";
    INVALID_PTX = 218, c"CUDA_ERROR_INVALID_PTX", c"a PTX JIT compilation failed";
    INVALID_HANDLE = 400, c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle";
    ILLEGAL_STATE = 401, c"CUDA_ERROR_ILLEGAL_STATE", c"the operation cannot be performed in the present state";
    NOT_FOUND = 500, c"CUDA_ERROR_NOT_FOUND", c"named symbol not found";
    NOT_READY = 600, c"CUDA_ERROR_NOT_READY", c"device not ready";
    ILLEGAL_ADDRESS = 700, c"CUDA_ERROR_ILLEGAL_ADDRESS", c"an illegal memory access was encountered";
    NOT_PERMITTED = 800, c"CUDA_ERROR_NOT_PERMITTED", c"operation not permitted";
    NOT_SUPPORTED = 801, c"CUDA_ERROR_NOT_SUPPORTED", c"operation not supported";
    CAPTURE_UNSUPPORTED = 900, c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", c"operation not permitted when stream is capturing";
    CAPTURE_INVALIDATED = 901, c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", c"operation failed due to a previous error during capture";
    UNKNOWN = 999, c"CUDA_ERROR_UNKNOWN", c"unknown error";
}

/// A call's result as the number that C sees.
pub(crate) fn status(result: Result<(), StatusCode>) -> StatusCode {
    result.err().unwrap_or(SUCCESS)
}

fn text(code: StatusCode) -> Result<(*const c_char, *const c_char), StatusCode> {
    let known = TEXTS.iter().find(|(known, ..)| *known == code).ok_or(INVALID_VALUE)?;
    Ok((known.1.as_ptr(), known.2.as_ptr()))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGetErrorName(code: StatusCode, name: *mut *const c_char) -> StatusCode {
    // SAFETY: the C caller's place.
    status(text(code).and_then(|(symbol, _)| unsafe { put(name, symbol) }))
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuGetErrorString(code: StatusCode, string: *mut *const c_char) -> StatusCode {
    // SAFETY: the C caller's place.
    status(text(code).and_then(|(_, text)| unsafe { put(string, text) }))
}
