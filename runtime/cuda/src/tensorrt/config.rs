//! What a build is given beside the model: shapes, precision, effort, tactics, timings.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use super::TensorrtError;
use super::abi::{self, Dims32, Dims64, Object, method};
use super::calls::{Monitor, take_errors};
use super::library::Opened;
use super::network::{BuildOptions, Memory, OpenInput, TOO_MANY_AXES};
use std::ffi::{CString, c_char, c_void};

/// `BuilderFlag::kFP16`.
const FP16: i32 = 0;

/// An `IBuilderConfig`.
pub(super) struct Config {
    // deleted in this order: a configuration goes before the timings that it began with
    object: Object,
    timings: Option<Object>,
    opened: &'static Opened,
}

fn refused(what: &'static str) -> TensorrtError {
    TensorrtError::Refused { what, said: take_errors() }
}

impl Config {
    /// # Safety
    /// `builder` is the inner object of an `IBuilder` of the opened library, which outlives this.
    pub(super) unsafe fn make(opened: &'static Opened, builder: *mut c_void) -> Result<Self, TensorrtError> {
        // SAFETY: as the caller states; the header says that the configuration is the caller's to delete.
        let made = unsafe { Object::own(method!(builder, opened.layout.builder.create_config, () -> *mut c_void)) };
        Ok(Self { object: made.ok_or_else(|| refused("make a configuration"))?, timings: None, opened })
    }

    pub(super) fn raw(&self) -> *mut c_void {
        self.object.raw()
    }

    /// Has the progress reported, where the release reports any.
    ///
    /// # Safety
    /// The monitor outlives this.
    pub(super) unsafe fn watch(&self, monitor: &Monitor<'_>) {
        if let Some(place) = self.opened.layout.config.set_progress_monitor {
            // SAFETY: an `IBuilderConfig`, and a monitor of the shape that these releases call.
            unsafe { method!(self.object.inner(), place, (*const Monitor<'_>: std::ptr::from_ref(monitor)) -> ()) }
        }
    }

    fn lacks(&self, what: &str, instead: &str) -> TensorrtError {
        TensorrtError::misuse(self.opened.version().to_string(), format!("it has no {what}; {instead}"))
    }

    /// Sets what `options` ask for.
    pub(super) fn apply(&mut self, options: &BuildOptions<'_>) -> Result<(), TensorrtError> {
        let (config, layout) = (self.object.inner(), self.opened.layout);
        if options.f16 {
            if layout.typed_by_model {
                return Err(
                    self.lacks("choice of precision", "export the model in 16 bits, or leave the precision out")
                );
            }
            // SAFETY: an `IBuilderConfig`.
            unsafe { method!(config, layout.config.set_flag, (i32: FP16) -> ()) }
        }
        if options.exact {
            // SAFETY: an `IBuilderConfig`.
            unsafe { method!(config, layout.config.clear_flag, (i32: layout.tf32) -> ()) }
        }
        if let Some(level) = options.level {
            let place = layout.config.set_level.ok_or_else(|| self.lacks("optimization level", "leave it out"))?;
            // SAFETY: an `IBuilderConfig`.
            unsafe { method!(config, place, (i32: level as i32) -> ()) }
        }
        if let Some(names) = options.tactics {
            let bits = names.iter().map(|name| self.tactic(name)).try_fold(0, |bits, bit| bit.map(|bit| bits | bit))?;
            // SAFETY: an `IBuilderConfig`.
            if !unsafe { method!(config, layout.config.set_tactic_sources, (u32: bits) -> bool) } {
                return Err(refused("take the tactic sources"));
            }
        }
        // timings of another GPU or release are refused, and the build begins with none
        self.timings = self.begin_with(options.timings).or_else(|| self.begin_with(&[]));
        let _ = take_errors();
        Ok(())
    }

    fn tactic(&self, name: &str) -> Result<u32, TensorrtError> {
        let known = self.opened.layout.tactics;
        let names = || known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let found = known.iter().find(|(known, _)| *known == name).map(|(_, bit)| 1 << bit);
        found.ok_or_else(|| self.lacks(&format!("tactic source '{name}'"), &format!("it has {}", names())))
    }

    fn begin_with(&self, timings: &[u8]) -> Option<Object> {
        let (config, places) = (self.object.inner(), &self.opened.layout.config);
        // SAFETY: an `IBuilderConfig`; the bytes live during the call, and the `ITimingCache` is ours.
        unsafe {
            let (data, size) = (timings.as_ptr(), timings.len());
            let cache = method!(config, places.create_timing_cache, (*const u8: data, usize: size) -> *mut c_void);
            // one of another GPU or release is not forgiven
            Object::own(cache).filter(
                |cache| method!(config, places.set_timing_cache, (*mut c_void: cache.raw(), bool: false) -> bool),
            )
        }
    }

    /// The timings that a build has left; nothing where TensorRT gives none.
    pub(super) fn timings(&self) -> Vec<u8> {
        let layout = self.opened.layout;
        // SAFETY: an `IBuilderConfig`; the `ITimingCache` is its own, the `IHostMemory` that it gives is ours.
        let memory = unsafe {
            let cache = method!(self.object.inner(), layout.config.timing_cache, () -> *mut c_void);
            if cache.is_null() {
                return Vec::new();
            }
            Object::own(method!(abi::inner(cache), layout.timing_cache.serialize, () -> *mut c_void))
        };
        memory.map(|object| Memory { object, opened: self.opened }.bytes().to_vec()).unwrap_or_default()
    }

    /// A profile for a range of extents, which is best at the largest.
    ///
    /// # Safety
    /// `builder` is the inner object of the `IBuilder` that made this.
    pub(super) unsafe fn add_profile(&self, builder: *mut c_void, open: &OpenInput<'_>) -> Result<(), TensorrtError> {
        let layout = self.opened.layout;
        // SAFETY: the builder owns its profiles (they are not ours to delete); names and extents live during the calls.
        unsafe {
            let profile = method!(builder, layout.builder.create_profile, () -> *mut c_void);
            if profile.is_null() {
                return Err(refused("make an optimization profile"));
            }
            let &OpenInput { name, least, most } = open;
            let text = CString::new(name).map_err(|_| TensorrtError::misuse(name, "a zero byte in a name"))?;
            // the smallest, the one to be best at, the largest
            for (selector, extents) in (0i32..).zip([least, most, most]) {
                let (object, place) = (abi::inner(profile), layout.profile.set_dims);
                let taken = match (layout.wide_dims, Dims64::of(extents), Dims32::of(extents)) {
                    (true, Some(wide), _) => method!(
                        object, place,
                        (*const c_char: text.as_ptr(), i32: selector, *const Dims64: &raw const wide) -> bool
                    ),
                    (false, _, Some(narrow)) => method!(
                        object, place, (*const c_char: text.as_ptr(), i32: selector, Dims32: narrow) -> bool
                    ),
                    _ => return Err(TensorrtError::misuse(name, TOO_MANY_AXES)),
                };
                if !taken {
                    return Err(refused("take the shape of an input"));
                }
            }
            let place = layout.config.add_profile;
            match method!(self.object.inner(), place, (*mut c_void: profile) -> i32) {
                ..0 => Err(refused("take the optimization profile")),
                _ => Ok(()),
            }
        }
    }
}
