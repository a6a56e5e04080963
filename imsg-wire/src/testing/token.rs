//! Descriptors for tests.

// A target that cannot swap in one step has no `Arc`, and no threads of the standard library.
#[cfg(not(target_has_atomic = "ptr"))]
use alloc::rc::Rc as Arc;
#[cfg(target_has_atomic = "ptr")]
use alloc::sync::Arc;
use core::convert::Infallible;
use core::fmt;
#[cfg(unix)]
use std::os::fd::OwnedFd;

/// Stands for a descriptor, and is counted: [`Tokens`] opens them.
pub struct Token {
    id: u32,
    open: Arc<()>,
}

impl Token {
    /// The number of what is open, as the test chose it. A [duplicate](Duplicate) has the same.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").field(&self.id).finish()
    }
}

/// By the number.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Token {}

/// Opens [`Token`]s, and knows how many of them are open.
///
/// ```
/// use imsg_wire::testing::Tokens;
///
/// let tokens = Tokens::default();
/// let (one, other) = (tokens.open(1), tokens.open(2));
/// drop(one);
/// assert_eq!((other.id(), tokens.count()), (2, 1));
/// ```
#[derive(Debug, Default)]
pub struct Tokens(Arc<()>);

impl Tokens {
    /// Opens one, with a number of the test's.
    #[must_use]
    pub fn open(&self, id: u32) -> Token {
        Token { id, open: Arc::clone(&self.0) }
    }

    /// How many are open, wherever they are.
    #[must_use]
    pub fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// A descriptor that can be sent: the receiver has one of its own, of the same open file (`dup`).
pub trait Duplicate {
    /// Another descriptor of the same file.
    #[must_use]
    fn duplicate(&self) -> Self;
}

impl Duplicate for Token {
    fn duplicate(&self) -> Self {
        Self { id: self.id, open: Arc::clone(&self.open) }
    }
}

/// A number will do where nothing is to be counted.
impl Duplicate for u32 {
    fn duplicate(&self) -> Self {
        *self
    }
}

impl Duplicate for Infallible {
    fn duplicate(&self) -> Self {
        match *self {}
    }
}

/// # Panics
///
/// When the process can have no more descriptors.
#[cfg(unix)]
impl Duplicate for OwnedFd {
    fn duplicate(&self) -> Self {
        match self.try_clone() {
            Ok(duplicate) => duplicate,
            Err(error) => panic!("cannot duplicate a descriptor: {error}"),
        }
    }
}
