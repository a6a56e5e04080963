//! Two small computers with a serial line: the BBC micro:bit (an nRF51822, which has a Cortex-M0), and
//! the machine `virt` of QEMU with a processor of 32-bit RISC-V.

use core::ptr::{self, read_volatile, write_volatile};

use crate::service::Broken;

/// Fills some of `buf` with what came over the line; waits for one byte at least.
pub fn input(buf: &mut [u8]) -> Result<usize, Broken> {
    let mut n: usize = 0;
    for place in buf {
        *place = match uart::take() {
            Some(byte) => byte,
            None if n > 0 => break,
            None => loop {
                if let Some(byte) = uart::take() {
                    break byte;
                }
            },
        };
        n = n.saturating_add(1);
    }
    Ok(n)
}

/// Sends all of `bytes`.
pub fn output(bytes: &[u8]) -> Result<usize, Broken> {
    for byte in bytes {
        while !uart::put(*byte) {}
    }
    Ok(bytes.len())
}

/// There is nowhere to go.
pub fn exit(_: u8) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// What has to be done before anything else.
///
/// # Safety
///
/// Nothing has used a static yet, and nothing does meanwhile.
pub unsafe fn set_up() {
    unsafe extern "C" {
        static mut bss_start: u32;
        static mut bss_end: u32;
    }
    let mut word = &raw mut bss_start;
    while !ptr::eq(word, &raw const bss_end) {
        // SAFETY: the linker script puts both at a multiple of 4, with memory in between that nothing
        // else uses now.
        unsafe {
            write_volatile(word, 0);
            word = word.add(1);
        }
    }
    uart::enable();
}

/// The UART of the nRF51 series.
#[cfg(target_arch = "arm")]
pub mod uart {
    use super::{register, set_register};

    const BASE: usize = 0x4000_2000;
    const START_RX: usize = BASE;
    const START_TX: usize = BASE + 0x8;
    const RX_READY: usize = BASE + 0x108;
    const TX_READY: usize = BASE + 0x11c;
    const ENABLE: usize = BASE + 0x500;
    const TX_PIN: usize = BASE + 0x50c;
    const RX_PIN: usize = BASE + 0x514;
    const RXD: usize = BASE + 0x518;
    const TXD: usize = BASE + 0x51c;
    const BAUD_RATE: usize = BASE + 0x524;

    pub(super) fn enable() {
        set_register(TX_PIN, 24_u32);
        set_register(RX_PIN, 25_u32);
        set_register(BAUD_RATE, 0x01d7_e000_u32); // 115200
        set_register(ENABLE, 4_u32);
        set_register(START_RX, 1_u32);
        set_register(START_TX, 1_u32);
    }

    /// The next byte that came, if there is one.
    pub fn take() -> Option<u8> {
        if register::<u32>(RX_READY) == 0 {
            return None;
        }
        set_register(RX_READY, 0_u32);
        Some(register::<u32>(RXD) as u8)
    }

    /// Sends a byte. (It waits for that one to be sent, and so always can.)
    pub fn put(byte: u8) -> bool {
        set_register(TX_READY, 0_u32);
        set_register(TXD, u32::from(byte));
        while register::<u32>(TX_READY) == 0 {}
        true
    }
}

/// A 16550.
#[cfg(not(target_arch = "arm"))]
pub mod uart {
    use super::{register, set_register};

    const DATA: usize = 0x1000_0000;
    const LINE_STATUS: usize = DATA + 5;
    const DATA_READY: u8 = 1;
    const TRANSMITTER_EMPTY: u8 = 1 << 5;

    pub(super) fn enable() {}

    /// The next byte that came, if there is one.
    pub fn take() -> Option<u8> {
        (register::<u8>(LINE_STATUS) & DATA_READY != 0).then(|| register(DATA))
    }

    /// Sends a byte, if the line can take one.
    pub fn put(byte: u8) -> bool {
        let ready = register::<u8>(LINE_STATUS) & TRANSMITTER_EMPTY != 0;
        if ready {
            set_register(DATA, byte);
        }
        ready
    }
}

fn register<T>(address: usize) -> T {
    // SAFETY: the callers name registers of the board, whose reads are defined for this type.
    unsafe { read_volatile(ptr::with_exposed_provenance(address)) }
}

fn set_register<T>(address: usize, value: T) {
    // SAFETY: the callers name registers of the board, and what they write does not reach memory.
    unsafe { write_volatile(ptr::with_exposed_provenance_mut(address), value) }
}
