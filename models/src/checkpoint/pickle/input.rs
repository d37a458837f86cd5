//! Reads the arguments of opcodes.

type Result<T> = std::result::Result<T, String>;

/// The bytes of a pickle, and the place of the next one.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or("it is cut short")?;
        self.at += length;
        Ok(taken)
    }

    /// An unsigned little-endian number of `N` bytes.
    pub(super) fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    /// Bytes after their length, itself a number of `N` bytes.
    pub(super) fn counted<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let length = self.number::<N>()?;
        self.take(usize::try_from(length).map_err(|_| "it is cut short")?)
    }

    pub(super) fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or("a line has no end")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line is not text".to_string())
    }
}
