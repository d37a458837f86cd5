//! The matrix as its author writes it.

mod block;
mod faults;
mod read;
mod source;
mod tables;

pub use self::block::{
    Block, Checkpoint, DatasetEntry, Limit, OtherNetwork, Selection, SelectionSplit, Sources, Transfer, Unlabeled,
};
pub use self::faults::{Fault, from_value};
pub(crate) use self::faults::{find_in, in_plain_words, remove, salvage, unknown_field};
pub use self::read::Matrix;
pub(crate) use self::read::head;
pub use self::source::{MatrixError, Mistake, Source};
pub use self::tables::{TableEntry, TableName};
