//! Objects of a C++ library, called by the rules of the Itanium C++ ABI, which gcc and clang follow on Linux: an object
//! begins with the address of its class's table of virtual functions, and a function takes the object first.
#![allow(unsafe_code, reason = "calls into a C++ library")]

use std::ffi::c_void;
use std::ptr::NonNull;

/// `Dims`: as many extents as `count` says, -1 for one that is open. They have 64 bits, or 32 in older releases.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Dims<Extent> {
    count: i32,
    extents: [Extent; 8],
}

pub(crate) type Dims64 = Dims<i64>;
pub(crate) type Dims32 = Dims<i32>;

impl<Extent: Copy + Default + Into<i64> + TryFrom<i64>> Dims<Extent> {
    /// `None` for more than 8 axes, or an extent that has no room.
    pub(crate) fn of(extents: &[i64]) -> Option<Self> {
        let mut all = [Extent::default(); 8];
        for (place, &extent) in all.get_mut(..extents.len())?.iter_mut().zip(extents) {
            *place = Extent::try_from(extent).ok()?;
        }
        Some(Self { count: extents.len() as i32, extents: all })
    }

    /// `None` where the library has no shape to report (a count of -1).
    pub(crate) fn extents(&self) -> Option<Vec<i64>> {
        let extents = self.extents.get(..usize::try_from(self.count).ok()?)?;
        Some(extents.iter().map(|&extent| extent.into()).collect())
    }
}

/// Calls the virtual function at `$place` of `$object`: `method!(object, place, (type: argument, ...) -> type)`.
/// The caller states why the object and the place are the right ones.
macro_rules! method {
    ($object:expr, $place:expr, ($($ty:ty : $arg:expr),* $(,)?) -> $ret:ty) => {{
        let object: *mut std::ffi::c_void = $object;
        let table = *object.cast::<*const *const std::ffi::c_void>();
        let function: unsafe extern "C" fn(*mut std::ffi::c_void $(, $ty)*) -> $ret =
            std::mem::transmute::<*const std::ffi::c_void, _>(*table.add($place));
        function(object $(, $arg)*)
    }};
}
pub(crate) use method;

/// [`method!`] for one that returns `Dims`, of the width that `$wide` states: their extents.
macro_rules! extents {
    ($wide:expr, $object:expr, $place:expr, $arguments:tt) => {
        if $wide {
            $crate::tensorrt::abi::method!($object, $place, $arguments -> $crate::tensorrt::abi::Dims64).extents()
        } else {
            $crate::tensorrt::abi::method!($object, $place, $arguments -> $crate::tensorrt::abi::Dims32).extents()
        }
    };
}
pub(crate) use extents;

/// The place of the destructor that also frees the object, in every class that begins with its destructors.
const DELETE: usize = 1;

/// An object that the library made for us, of a class that derives from `INoCopy`.
#[derive(Debug)]
pub(crate) struct Object(NonNull<c_void>);

// SAFETY: TensorRT's objects are bound to no thread; that two threads do not use one at once is what `&mut` and the
// lock of the builder see to.
unsafe impl Send for Object {}

impl Object {
    /// # Safety
    /// `raw` is null or such an object, and nobody else deletes it.
    pub(crate) unsafe fn own(raw: *mut c_void) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// The object itself, as a C++ pointer to its interface.
    pub(crate) fn raw(&self) -> *mut c_void {
        self.0.as_ptr()
    }

    /// The object behind the interface, whose table [`Layout`](super::layout::Layout) describes.
    pub(crate) fn inner(&self) -> *mut c_void {
        // SAFETY: `INoCopy` holds its table's address alone, and each class puts the pointer right behind it.
        unsafe { inner(self.raw()) }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: ours, deleted once, by the deleting destructor of its own class.
        unsafe { method!(self.raw(), DELETE, () -> ()) }
    }
}

/// The object behind an interface that is not ours to delete.
///
/// # Safety
/// `interface` is an object of a class that derives from `INoCopy`.
pub(crate) unsafe fn inner(interface: *mut c_void) -> *mut c_void {
    // SAFETY: as the caller states; the pointer is behind the address of the table.
    unsafe { *interface.cast::<*mut c_void>().add(1) }
}
