//! What lies on disk: the folder of a run, its cells, its leases and its files.

pub mod cell_folder;
pub mod checkpoint;
pub mod clean;
pub mod examples;
pub mod files;
pub mod host;
pub mod leases;
pub mod manifest;

mod error;
mod run_folder;

pub use self::error::UserError;
pub use self::run_folder::RunFolder;
