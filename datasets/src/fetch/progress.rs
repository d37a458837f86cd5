//! The events of a download.

/// An event of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// Another process fetches the same data set; this one waits for it.
    Waiting,
    /// The file, or the whole data set, is there already.
    Present {
        /// A file's or data set's name.
        file: &'a str,
    },
    /// A mirror is asked.
    Asking {
        /// The file.
        file: &'a str,
        /// Its address.
        url: &'a str,
    },
    /// Bytes have arrived.
    Bytes {
        /// The file.
        file: &'a str,
        /// How many have been received.
        done: u64,
        /// How many are expected in total.
        total: u64,
    },
    /// A mirror failed; it is asked again, or the next one is, or an error follows.
    Failed {
        /// The address.
        url: &'a str,
        /// What happened.
        reason: &'a str,
    },
    /// An archive is being unpacked.
    Unpacking {
        /// The archive.
        file: &'a str,
    },
    /// The file is here and verified.
    Done {
        /// The file.
        file: &'a str,
    },
}
