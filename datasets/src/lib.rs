//! Image data sets: read, verify, download, split, augment.
//!
//! ```
//! use std::path::Path;
//!
//! use datasets::{Verify, load};
//!
//! let digits = load("digits", Path::new("."), Verify::Yes)?;
//! assert_eq!(digits.image, [1, 8, 8]);
//! assert_eq!(digits.train.len() + digits.test.len(), 1797);
//! # Ok::<(), datasets::DataError>(())
//! ```
//!
//! Pixels stay bytes until a batch is filled. Nothing here prints, trains or reads a clock, and only
//! [`fetch`] uses the network. A data set whose files are not the official ones is refused unless the
//! caller asks for it ([`Verify::No`]); then [`Dataset::verified`] is false.
//!
//! A data set is one file with its [`Entry`] and one line in `catalogue.rs`.

mod error;
mod root;

mod checksum;
mod dataset;
mod split;

mod augment;

mod entry;

mod cifar10;
mod cifar100;
mod digits;
mod fashion_mnist;
mod mnist;

mod catalogue;
mod verify;

mod cifar;
mod idx;

mod read;

mod fetch;

pub mod formats;

pub use augment::{Augment, Crop, Draw, Padding, crop, flip};
pub use catalogue::{entries, entry};
pub use dataset::{Dataset, Split};
pub use entry::{Entry, Family};
pub use error::DataError;
pub use fetch::{Mirrors, Progress, fetch};
pub use read::load;
pub use root::root;
pub use split::{HoldOut, hold_out, limit};
pub use verify::Verify;
