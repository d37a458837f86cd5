//! Messages to people, on stderr.

use std::fmt::Display;
use std::io::Write;

/// Writes one line. That nobody reads it is no reason to stop: a closed stderr is ignored.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
