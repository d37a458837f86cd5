//! What the tables of a matrix will show.

mod build;
mod spec;
mod style;
mod trained;
mod worst;

pub(crate) use self::build::table_specs;
pub use self::spec::RunTables;
pub use self::style::{StyleChanges, restyle};
pub use self::trained::{LossWeight, Names, Trained};
pub use self::worst::worst_label;
