//! Seals: a checksum inside a file by which the file itself shows whether its bytes are those that were written.
//!
//! JSON carries a BLAKE3 digest as its last entry ([`json`]); a Parquet table carries a checksum in a gap before its footer.

pub mod json;
pub(crate) mod parquet;
