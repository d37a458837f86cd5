//! The readers of single files, for checks of their robustness.

use crate::verify::Record;
use crate::{cifar, idx};

/// The elements of an IDX file of at most `most` items of this shape (`[H, W]`, or `[]` for labels); `packed`
/// by gzip or not.
///
/// # Errors
/// What is wrong, and where.
pub fn idx(content: &[u8], item: &[usize], most: usize, packed: bool) -> Result<Vec<u8>, String> {
    let elements = if packed {
        idx::parse_packed(content, item, most)
    } else {
        idx::parse(&mut &content[..], item, most)
    };
    elements.map_err(|(place, problem)| format!("{place}: {problem}"))
}

/// The label bytes and the pixels of every record of a binary CIFAR file.
///
/// # Errors
/// What is wrong, and where.
pub fn cifar(content: &[u8], label_bytes: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (mut labels, mut pixels) = (Vec::new(), Vec::new());
    let records = cifar::parse(content, [3, 32, 32], label_bytes, |label, image| {
        labels.extend(&label[..label_bytes]);
        pixels.extend(image);
    });
    match records {
        Ok(()) => Ok((labels, pixels)),
        Err((place, problem)) => Err(format!("{place}: {problem}")),
    }
}

/// Whether the bytes are the record that unpacking an archive leaves.
pub fn record(content: &[u8]) -> bool {
    serde_json::from_slice::<Record>(content).is_ok()
}
