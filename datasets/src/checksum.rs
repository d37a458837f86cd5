//! Checksums in lower-case hex.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use md5::{Digest, Md5};

pub(crate) fn md5_hex(content: &[u8]) -> String {
    hex(&Md5::digest(content))
}

/// The MD5 of a file too large to hold.
pub(crate) fn md5_of_file(file: &Path) -> std::io::Result<String> {
    let mut reader = File::open(file)?;
    let mut hash = Md5::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
