//! A run as one HTML page.

mod cells;
mod origin;
mod page;
mod warnings;

pub(crate) use self::page::report;
