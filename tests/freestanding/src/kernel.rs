//! The system calls.

use core::arch::asm;

#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const RT_SIGACTION: usize = 13;
    pub const EXIT: usize = 60;
    pub const PRCTL: usize = 157;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const RT_SIGACTION: usize = 134;
    pub const EXIT: usize = 93;
    pub const PRCTL: usize = 167;
}

/// The number of an error (`errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub usize);

/// Reads into `buf`; 0 is the end of the stream.
pub fn read(descriptor: usize, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the pointer and the length are those of `buf`, which is borrowed for writing.
    unsafe { call(number::READ, [descriptor, buf.as_mut_ptr() as usize, buf.len(), 0]) }
}

/// Writes some of `bytes`.
pub fn write(descriptor: usize, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the pointer and the length are those of `bytes`, which are borrowed.
    unsafe { call(number::WRITE, [descriptor, bytes.as_ptr() as usize, bytes.len(), 0]) }
}

/// Reads from standard input.
pub fn input(buf: &mut [u8]) -> Result<usize, Errno> {
    read(0, buf)
}

/// Writes to standard output.
pub fn output(bytes: &[u8]) -> Result<usize, Errno> {
    write(1, bytes)
}

/// Leaves the process nothing but `read`, `write`, `exit` and `sigreturn`: seccomp's strict mode.
/// Any other call kills it.
pub fn enter_strict_mode() -> Result<(), Errno> {
    const PR_SET_SECCOMP: usize = 22;
    const SECCOMP_MODE_STRICT: usize = 1;
    // SAFETY: this call takes no pointers.
    unsafe { call(number::PRCTL, [PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0]) }.map(|_| ())
}

/// Makes a write to a closed socket an error, and not a signal.
pub fn ignore_sigpipe() -> Result<(), Errno> {
    const SIGPIPE: usize = 13;
    const SIG_IGN: usize = 1;
    // The handler, flags, restorer and mask.
    let action = [SIG_IGN, 0, 0, 0];
    // SAFETY: the pointer is that of a `sigaction` as the kernel lays it out, whose mask has the
    // 8 bytes stated.
    unsafe { call(number::RT_SIGACTION, [SIGPIPE, action.as_ptr() as usize, 0, 8]) }.map(|_| ())
}

/// Ends the thread, which is the whole process. (`exit_group` does not exist in strict mode.)
pub fn exit(code: u8) -> ! {
    loop {
        // SAFETY: this call takes no pointers.
        let _ = unsafe { call(number::EXIT, [code.into(), 0, 0, 0]) };
    }
}

/// # Safety
///
/// What is a pointer in `arguments` is valid for what the call does with it.
unsafe fn call(number: usize, arguments: [usize; 4]) -> Result<usize, Errno> {
    let [a, b, c, d] = arguments;
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the registers are those of the system call convention; the rest is the caller's.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the registers are those of the system call convention; the rest is the caller's.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d,
            options(nostack),
        );
    }
    usize::try_from(result).map_err(|_| Errno(result.unsigned_abs()))
}
