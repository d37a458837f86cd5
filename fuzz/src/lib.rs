//! Damages valid files in many ways and checks what their readers do.
//!
//! A [`Target`] has a few valid files, ways to damage them, and a check. The check calls the reader and, if
//! it accepts, compares its result with an independent reading of the same bytes: a wrong acceptance is a failure, as
//! a panic is. Input `i` of a target is a function of `i` alone, so its number reproduces it.
//!
//! Most damage to a format with checksums ends at the checksum. So the damage is also done inside, and the
//! checksums are made to fit: members of zip files, what is packed by gzip, the footer behind our seal.

mod damage;
mod rng;
mod target;
mod targets;

pub use rng::Rng;
pub use target::{Input, Target, Verdict};
pub use targets::targets;
