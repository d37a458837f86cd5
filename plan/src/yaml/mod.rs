//! The YAML library is known here alone: text becomes plain JSON values, and a path into them a place in the text.

mod locate;
mod parse;
mod path;

pub use self::locate::locate;
pub use self::parse::{SyntaxError, invisible, parse, parse_scalar};
pub use self::path::{Path, Place, Segment};
