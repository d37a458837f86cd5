//! Standard output whose reader may close it early.

use std::io::{Error, ErrorKind, Result, Write};

/// Discards what is written after the reader has closed, so that a command still writes its files and keeps its exit
/// code. Only [`flush`](Write::flush) reports the closed reader, for commands that print until it is gone.
pub(super) struct Output<W> {
    inner: W,
    closed: bool,
}

impl<W: Write> Output<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, closed: false }
    }

    /// Writes what is still buffered. A closed reader is no error.
    pub(super) fn finish(&mut self) -> Result<()> {
        match self.flush() {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        match self.inner.write(bytes) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(bytes.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.closed {
            return Err(Error::from(ErrorKind::BrokenPipe));
        }
        let flushed = self.inner.flush();
        self.closed = flushed
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_reader_stops_only_what_flushes() {
        let mut out = Output::new(Closed);
        writeln!(out, "a line").unwrap();
        writeln!(out, "another").unwrap();
        assert_eq!(out.flush().unwrap_err().kind(), ErrorKind::BrokenPipe);
        out.finish().unwrap();
        let mut open = Output::new(Vec::new());
        writeln!(open, "a line").unwrap();
        open.finish().unwrap();
        assert_eq!(open.inner, b"a line\n");
    }
}
