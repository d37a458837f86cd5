//! A run as one HTML page.

mod cells;
mod classes;
mod details;
mod origin;
mod page;
mod warnings;

pub(crate) use self::page::report;
