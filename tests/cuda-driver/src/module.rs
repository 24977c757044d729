//! Modules and launches. The text of a module is read for its kernels' names and parameters; what runs is the same
//! source, compiled for this processor.

use crate::code::{INVALID_HANDLE, INVALID_PTX, INVALID_VALUE, NOT_FOUND, StatusCode, status};
use crate::memory::Use;
use crate::put;
use crate::state::{State, fresh, in_context, misuse};
use std::ffi::{CStr, c_char, c_uint, c_void};
use std::sync::Arc;

pub(crate) struct Module {
    /// Names, and the sizes of the parameters, in bytes.
    kernels: Vec<(String, Vec<usize>)>,
}

pub(crate) struct Function {
    module: u64,
    name: String,
    parameters: Vec<usize>,
}

/// The kernels of a text of PTX, or why it is none.
fn kernels(text: &str) -> Result<Vec<(String, Vec<usize>)>, String> {
    for directive in [".version", ".target", ".entry"] {
        if !text.contains(directive) {
            return Err(format!("stand-in for ptxas: no {directive} in {} bytes of text", text.len()));
        }
    }
    let kernel = |rest: &str| {
        let name = rest.trim_start().split(|c: char| c.is_whitespace() || c == '(' || c == '{').next()?;
        let after = rest.trim_start().strip_prefix(name)?.trim_start();
        let list = match after.strip_prefix('(') {
            Some(list) => list.split_once(')')?.0,
            None => "",
        };
        let parameters = list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(parameter_bytes);
        Some((name.to_owned(), parameters.collect::<Option<Vec<usize>>>()?))
    };
    let found = text.split(".entry").skip(1).map(kernel);
    found.collect::<Option<_>>().ok_or_else(|| "stand-in for ptxas: the head of an .entry is not understood".into())
}

/// The size of `.param .align 8 .b8 name[64]`.
fn parameter_bytes(text: &str) -> Option<usize> {
    let one = text.split_ascii_whitespace().find_map(|word| {
        let bits = word.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?;
        Some(bits.parse::<usize>().ok()? / 8)
    })?;
    match text.split_once('[') {
        Some((_, count)) => Some(one * count.split_once(']')?.0.trim().parse::<usize>().ok()?),
        None => Some(one),
    }
}

const ERROR_LOG_BUFFER: c_uint = 5;
const ERROR_LOG_BUFFER_BYTES: c_uint = 6;

/// Writes the compiler's words where the options of a load say.
///
/// # Safety
/// The options are `count` pairs of the driver's meaning.
unsafe fn log(text: &str, count: c_uint, options: *const c_uint, values: *const *mut c_void) {
    if options.is_null() || values.is_null() {
        return;
    }
    // SAFETY: the caller's contract.
    let value = |wanted: c_uint| unsafe {
        (0..count as usize).find(|&i| options.add(i).read() == wanted).map(|i| values.add(i).read())
    };
    let (Some(buffer), Some(capacity)) = (value(ERROR_LOG_BUFFER), value(ERROR_LOG_BUFFER_BYTES)) else { return };
    let capacity = capacity as usize;
    if buffer.is_null() || capacity == 0 {
        return;
    }
    let length = text.len().min(capacity - 1);
    // SAFETY: at most the capacity that the options state, with the zero.
    unsafe {
        buffer.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), length);
        buffer.cast::<u8>().add(length).write(0);
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuModuleLoadDataEx(
    to: *mut *mut c_void,
    image: *const c_void,
    count: c_uint,
    options: *mut c_uint,
    values: *mut *mut c_void,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuModuleLoadDataEx")?;
        if image.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: text of PTX ends with a zero: the C caller's contract. Cubins are not told apart.
        let text = unsafe { CStr::from_ptr(image.cast()) }.to_string_lossy();
        let kernels = kernels(&text).map_err(|why| {
            // SAFETY: the C caller's options.
            unsafe { log(&why, count, options, values) };
            INVALID_PTX
        })?;
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.modules.insert(number, Arc::new(Module { kernels }));
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuModuleUnload(module: *mut c_void) -> StatusCode {
    status((|| {
        let mut state = in_context("cuModuleUnload")?;
        if state.modules.remove(&(module as u64)).is_none() {
            return Err(misuse(INVALID_HANDLE, "cuModuleUnload: no module (or no longer)"));
        }
        state.functions.retain(|_, function| function.module != module as u64);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuModuleGetFunction(
    to: *mut *mut c_void,
    module: *mut c_void,
    name: *const c_char,
) -> StatusCode {
    status((|| {
        let mut state = in_context("cuModuleGetFunction")?;
        if name.is_null() {
            return Err(INVALID_VALUE);
        }
        let found = state.modules.get(&(module as u64));
        let found = found.ok_or_else(|| misuse(INVALID_HANDLE, "cuModuleGetFunction: no module (or no longer)"))?;
        // SAFETY: the C caller's text.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        let (name, parameters) = found.kernels.iter().find(|(known, _)| *known == name).ok_or(NOT_FOUND)?.clone();
        let number = fresh();
        // SAFETY: the C caller's place.
        unsafe { put(to, number as *mut c_void) }?;
        state.functions.insert(number, Arc::new(Function { module: module as u64, name, parameters }));
        Ok(())
    })())
}

impl State {
    fn function(&self, call: &str, function: *mut c_void) -> Result<Arc<Function>, StatusCode> {
        let found = self.functions.get(&(function as u64)).cloned();
        found.ok_or_else(|| misuse(INVALID_HANDLE, format_args!("{call}: no function, or its module is unloaded")))
    }

    /// The memory that a kernel may reach: whatever looks like an address of the device in its parameters.
    fn reached(&self, parameters: &[Vec<u64>]) -> Vec<Use> {
        let words = parameters.iter().flatten();
        words.filter_map(|&word| self.region_at(word)).map(|(_, region)| region.uses.one()).collect()
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn cuLaunchKernel(
    function: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: *mut c_void,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> StatusCode {
    status((|| {
        let state = in_context("cuLaunchKernel")?;
        let function = state.function("cuLaunchKernel", function)?;
        let stream = state.stream("cuLaunchKernel", stream)?;
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
        let fits = grid.iter().all(|&n| n > 0) && grid_x <= i32::MAX as u32 && grid_y <= 65535 && grid_z <= 65535;
        if !fits || threads == 0 || threads > 1024 || block_z > 64 || shared_bytes > 48 << 10 || !extra.is_null() {
            return Err(INVALID_VALUE);
        }
        if arguments.is_null() && !function.parameters.is_empty() {
            return Err(INVALID_VALUE);
        }
        // parameters are passed by value: what they are now counts, not what they are when the kernel runs
        let copied: Vec<Vec<u64>> = function
            .parameters
            .iter()
            .enumerate()
            .map(|(i, &bytes)| {
                let mut copy = vec![0u64; bytes.div_ceil(8)];
                // SAFETY: the C caller passes a pointer for each parameter, to a value of that size.
                unsafe {
                    copy.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(arguments.add(i).read().cast(), bytes)
                };
                copy
            })
            .collect();
        let uses = state.reached(&copied);
        launch(&stream, function, grid, block, copied, uses);
        Ok(())
    })())
}

/// Queues the body of a kernel.
fn launch(
    stream: &crate::stream::Stream,
    function: Arc<Function>,
    grid: [u32; 3],
    block: [u32; 3],
    mut parameters: Vec<Vec<u64>>,
    uses: Vec<Use>,
) {
    stream.submit(move || {
        let mut arguments: Vec<*mut c_void> = parameters.iter_mut().map(|p| p.as_mut_ptr().cast()).collect();
        let arguments = arguments.as_mut_ptr();
        // SAFETY: a value for each parameter, of the size that the module's text states; what they point to is the
        // launcher's to vouch for, and the allocations among it may not go while they are used.
        let known = unsafe {
            conformance(&function.name, grid, block, arguments)
                || millrace_kernels_host::launch(&function.name, grid, block, arguments)
        };
        if !known {
            misuse(
                crate::code::NOT_SUPPORTED,
                format_args!("no body of kernel {} is compiled for this processor", function.name),
            );
        }
        drop(uses);
    });
}

/// The one kernel of the conformance suite of `runtime/cuda`, which has its text there: `to[i] = value + i`.
///
/// # Safety
/// `arguments` are those of the kernel.
unsafe fn conformance(name: &str, grid: [u32; 3], block: [u32; 3], arguments: *mut *mut c_void) -> bool {
    if name != "conformance_count" {
        return false;
    }
    // SAFETY: an address and two numbers; the memory at the address is the launcher's to vouch for.
    unsafe {
        let to = arguments.read().cast::<*mut u32>().read();
        let value = arguments.add(1).read().cast::<u32>().read();
        let count = arguments.add(2).read().cast::<u32>().read();
        for i in (0..grid[0] * block[0]).filter(|&i| i < count) {
            to.add(i as usize).write_unaligned(value + i);
        }
    }
    true
}
