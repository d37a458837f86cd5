//! Reads a finished run and typesets it.

pub(crate) mod attack;
pub(crate) mod compare;
mod example_images;
mod export;
mod figures;
pub(crate) mod gather;
mod report;
mod run;
mod tables;

pub(crate) use self::export::export;
pub(crate) use self::report::report;
pub(crate) use self::run::Changes;
pub(crate) use self::tables::{derive, read as read_tables, write as write_tables};
