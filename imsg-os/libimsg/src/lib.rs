//! `libimsg`, the C library of imsg, over `imsg-wire`.
//!
//! The system that this project is about is a C library. This is that library again, for programs
//! that stay in C: they are compiled and linked as before, and the faults of descriptor passing that
//! the C libraries have are gone. The headers are in `include`, and `FUNCTIONS.md` lists each
//! function and what it does otherwise than in C.
//!
//! Both interfaces are in one shared object. The classic one has the plain names; a function of the
//! modern one that is not also of the classic one, and the same there, has a symbol that ends in
//! `_modern`, which its header declares.
//!
//! ```text
//!   classic.rs                modern.rs          what C programs call, and the structures they see
//!       │                         │
//!       ├── compose.rs ───────────┤              messages into a queue
//!       ├── queue.rs, ibuf.rs ────┤              buffers, and TAILQs of them
//!       ├── send.rs ──────────────┤              a queue to a socket
//!       └── receive.rs ───────────┤              a socket to messages: imsg_wire::RecvBuf
//!                                 └── framing.rs a socket to what the program delimits itself
//!   dialect.rs, memory.rs, errno.rs              which of the two dialects, malloc, and errno
//! ```
//!
//! Nothing here decides about the protocol: headers, lengths, marks and the pairing of descriptors
//! are those of `imsg-wire`, and the system calls with descriptors those of `imsg-os`. Memory is of
//! C's `malloc`. Nothing happens at load, there are no threads, and no state is outside of what the
//! program holds, so it is safe after `fork`.

#![deny(missing_docs)]

pub mod classic;
mod compose;
mod dialect;
mod errno;
mod framing;
pub mod ibuf;
mod memory;
pub mod modern;
pub mod queue;
mod receive;
mod send;
