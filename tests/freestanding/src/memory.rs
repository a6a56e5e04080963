//! The functions that the compiler calls to copy, fill and compare memory, as C names them.

use core::ptr::{read_volatile, write_volatile};

// Accesses are volatile where a loop would be compiled to a call of the very function that it is
// in.

/// # Safety
///
/// As of C: both are valid for `n` bytes, and do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { copy_up(to, from, n) };
    to
}

/// # Safety
///
/// As of C: both are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    if to.addr() <= from.addr() {
        // SAFETY: the caller's; bytes are read before they are overwritten.
        unsafe { copy_up(to, from, n) };
    } else {
        for i in (0..n).rev() {
            // SAFETY: the caller's; bytes are read before they are overwritten.
            unsafe { write_volatile(to.add(i), read_volatile(from.add(i))) };
        }
    }
    to
}

/// # Safety
///
/// As of C: it is valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    for i in 0..n {
        // SAFETY: the caller's.
        unsafe { write_volatile(to.add(i), byte as u8) };
    }
    to
}

/// # Safety
///
/// As of C: both are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    for i in 0..n {
        // SAFETY: the caller's.
        let (a, b) = unsafe { (read_volatile(a.add(i)), read_volatile(b.add(i))) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// # Safety
///
/// As of C: both are valid for `n` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(a, b, n) }
}

/// # Safety
///
/// As of C: it is valid up to its first zero byte.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut n = 0;
    // SAFETY: the caller's.
    while unsafe { read_volatile(string.add(n)) } != 0 {
        n += 1;
    }
    n
}

#[cfg(target_arch = "x86_64")]
unsafe fn copy_up(to: *mut u8, from: *const u8, n: usize) {
    // SAFETY: the caller's; the direction flag is clear, as the ABI says.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rdi") to => _, inout("rsi") from => _, inout("rcx") n => _,
            options(nostack, preserves_flags),
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_up(to: *mut u8, from: *const u8, n: usize) {
    for i in 0..n {
        // SAFETY: the caller's.
        unsafe { write_volatile(to.add(i), read_volatile(from.add(i))) };
    }
}
