//! Loaded into Envoy (`LD_PRELOAD`) by tests that look at old tokens: its wall clock stands still at the moment that the
//! environment names when this is compiled. The clocks that only count go on. Not part of any crate: see `src/clock.rs`.

use std::ffi::{c_int, c_long};

/// `struct timespec`, where time and `long` have 64 bits.
#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: c_long,
}

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// In place of the C library's.
///
/// # Safety
/// As there: `time` is null or points to a `struct timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the kernel checks the pointer.
    let result = unsafe { syscall(CLOCK_GETTIME, c_long::from(clock), time) };
    if result == 0 && matches!(clock, REALTIME | REALTIME_COARSE) {
        // SAFETY: the kernel has just written there.
        unsafe { *time = Timespec { seconds: NOW, nanoseconds: 0 } };
    }
    result as c_int
}

const NOW: i64 = match i64::from_str_radix(env!("CLAIMGATE_CLOCK"), 10) {
    Ok(seconds) => seconds,
    Err(_) => panic!("a moment in seconds since the epoch"),
};
const REALTIME: c_int = 0;
const REALTIME_COARSE: c_int = 5;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const CLOCK_GETTIME: c_long = 228;
#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const CLOCK_GETTIME: c_long = 113;
