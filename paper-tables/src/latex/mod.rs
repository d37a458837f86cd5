//! Tables as LaTeX with booktabs: a document that compiles on its own, or a fragment for `\input`.

mod escape;
mod exporter;
mod long;
mod parts;
mod symbols;
mod wide;

pub(crate) use self::escape::{comments, escape, remark};
pub use self::exporter::Latex;
pub(crate) use self::parts::filled;
