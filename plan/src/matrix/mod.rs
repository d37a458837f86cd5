//! The matrix as its author writes it.

mod block;
mod read;
mod source;
mod tables;

pub use self::block::{
    Block, Checkpoint, DatasetEntry, Limit, OtherNetwork, Selection, SelectionSplit, Sources, Transfer, Unlabeled,
};
pub use self::read::{Matrix, from_value};
pub use self::source::{MatrixError, Source};
pub use self::tables::{TableEntry, TableName};
