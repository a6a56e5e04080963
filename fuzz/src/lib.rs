//! What the fuzz targets do, as functions, so that a stable compiler can replay what was found.

mod descriptors;
mod parse;

pub use descriptors::descriptors;
pub use parse::parse;
