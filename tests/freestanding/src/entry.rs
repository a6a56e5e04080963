//! Where the program is started, and where a panic would end it.

use core::panic::PanicInfo;

/// Makes `$main`, a function that returns an exit code, the entry point of the program.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_arch = "x86_64")]
        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "xor ebp, ebp",
            "and rsp, -16",
            "call {start}",
            start = sym start,
        );

        #[cfg(target_arch = "aarch64")]
        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "mov x29, xzr",
            "bl {start}",
            start = sym start,
        );

        // What a Cortex-M reads first: the stack, and where to start; then where its faults go.
        #[cfg(target_arch = "arm")]
        core::arch::global_asm!(
            ".section .first, \"a\"",
            ".word stack_top",
            ".word start",
            ".rept 14",
            ".word fault",
            ".endr",
            ".text",
            ".thumb_func",
            "fault: b fault",
        );

        #[cfg(target_arch = "riscv32")]
        core::arch::global_asm!(
            ".section .first, \"ax\"",
            "la sp, stack_top",
            "j start",
            ".text",
        );

        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn start() -> ! {
            // SAFETY: nothing was before this.
            unsafe { $crate::board::set_up() };
            $crate::system::exit($main())
        }

        #[cfg(target_os = "linux")]
        extern "C" fn start() -> ! {
            $crate::system::exit($main())
        }
    };
}

unsafe extern "C" {
    /// Exists nowhere, so that a program links only if the linker finds no way to a panic.
    fn imsg_a_panic_is_reachable() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: a program that could get here does not exist.
    unsafe { imsg_a_panic_is_reachable() }
}
