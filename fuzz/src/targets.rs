//! Every reader of files that other people may have written.

mod archives;
mod images;
mod matrices;
mod tables;
mod tensors;
mod texts;

use crate::Target;

/// All targets, by name.
pub fn targets() -> Vec<Target> {
    let mut targets = images::targets();
    targets.extend(tensors::targets());
    targets.extend(archives::targets());
    targets.extend(tables::targets());
    targets.extend(matrices::targets());
    targets.extend(texts::targets());
    targets
}
