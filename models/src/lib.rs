//! The networks of the adversarial-training literature, under their authors' parameter names.

mod classifier;

pub use classifier::{Classifier, Dropout, FromModule, Mode};
