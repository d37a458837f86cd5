//! Reads state dictionaries from safetensors files and from PyTorch's `.pt` and `.pth` files.
//!
//! Examples may also be in NumPy's `.npz` files, whose arrays are read here as well.
//!
//! Nothing of a file is ever executed. A pickle is read by a small machine ([`pickle`]) that builds plain
//! values and knows a handful of globals, those of tensors and ordered dictionaries. What is made with any other, such as
//! a number of NumPy beside the weights, is passed over without being made, and a global that runs code where a file is
//! loaded ends the reading with its name. Nothing is unpacked to disk, no name in a file is taken for a path, and no
//! more memory is taken than a small multiple of the file's size.
//!
//! Candle's own `candle_core::pickle` is not used: it silently skips tensors that it does not understand,
//! treats every global as data, copies a value at each reference to it (so that a small file can need exponential
//! memory), finds nested dictionaries only by a key that the caller must know, and reads neither Python integers
//! beyond 32 bits nor the format before PyTorch 1.6. A reader of other people's files must report what it does not
//! understand.

mod contents;
mod error;

mod element;
mod view;

mod pickle;

mod archive;
mod choose;
mod dictionary;
mod legacy;
mod npz;
mod safe;

mod fit;
mod read;

#[cfg(test)]
mod tests;

pub use contents::{Checkpoint, Format};
pub use error::CheckpointError;
pub use fit::Loaded;
