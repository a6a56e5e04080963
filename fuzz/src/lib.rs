//! What the fuzz targets do, as functions, so that a stable compiler can replay what was found.

mod parse;

pub use parse::parse;
