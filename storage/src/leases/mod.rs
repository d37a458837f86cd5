//! Leases: which process works on which cell, so that several processes, also on several hosts that share a folder, can
//! work on one run.
//!
//! ```text
//! processes/<token>.json    a process: host, number, since when; locked and touched while it lives
//! processes/<token>.progress  how far its cells are, for those who watch
//! claims/<key>.<n>          the n-th lease on a cell: by which process, and where it works
//! cells/<cell>.<token>/     where the holder of a lease works, alone
//! cells/<cell>/             a cell that ended, renamed to this name with everything in it
//! ```
//!
//! - A lease is a file that only one process can have made: it appears under its name with its content, or not at all.
//!   The highest number counts; numbers start again only when the cell has ended.
//! - A lease lives as long as its process. On the same host a process lives as long as the operating system holds the
//!   lock on its file. On another host it lives as long as its file's time changes within the span it promised. The
//!   waiting process watches for the change, so clocks may differ.
//! - A process that takes over a dead lease makes the next number and renames the old holder's folder to one of its
//!   own. An old holder that was only slow finds its folder gone: it can write neither into the new holder's folder nor
//!   into the finished cell.
//! - A cell ends by one rename of a folder. If two processes computed it, the first stays; except for the timings, the
//!   second would have been the same bytes.
//! - Tokens, cells and folders in these files are read as [`Token`], [`CellName`](plan::CellName) and [`WorkName`], so
//!   the files of a foreign run lead to no other folder.

mod info;
mod lease;
mod listing;
mod process;
mod record;
mod token;
mod upkeep;

pub use self::info::{ProcessInfo, STALE_AFTER, process_file, progress_file};
pub use self::lease::{Attempt, Lease, Published};
pub use self::process::Process;
pub use self::record::{Holder, NotAWorkName, WorkName, read_holder};
pub use self::token::{NotAToken, Token};
pub use self::upkeep::{begun, tidy, watch};

#[cfg(test)]
mod tests;
