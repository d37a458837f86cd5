//! A checksum inside a Parquet file.
//!
//! A Parquet reader trusts its footer: one flipped bit can ask for an exabyte of memory. So a table
//! carries a checksum of all its other bytes, in a gap between the last page and the footer, where
//! every Parquet reader skips it:
//!
//! `PAR1 | pages | mark, checksum | footer | length of the footer, PAR1`

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

const MARK: &[u8; 8] = b"checksum";
/// Mark and checksum.
const SEAL: usize = 16;
/// Length of the footer and `PAR1`.
const TAIL: usize = 8;

/// FNV-1a, 64 bits: it guards against accidents, not against forgery.
#[derive(Clone, Copy, PartialEq)]
struct Checksum(u64);

impl Checksum {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }
}

/// Passes a Parquet file on and keeps its checksum.
pub(crate) struct Writer<W: Write> {
    file: BufWriter<W>,
    checksum: Checksum,
}

impl<W: Read + Write + Seek> Writer<W> {
    pub(crate) fn new(file: W) -> Self {
        Self {
            file: BufWriter::new(file),
            checksum: Checksum::NEW,
        }
    }

    /// Moves the footer back and puts the seal before it.
    pub(crate) fn seal(mut self) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_mut();
        let mut tail = [0; TAIL];
        file.seek(SeekFrom::End(-(TAIL as i64)))?;
        file.read_exact(&mut tail)?;
        let from_end = footer_length(&tail) + TAIL;
        let mut footer = vec![0; from_end];
        file.seek(SeekFrom::End(-(from_end as i64)))?;
        file.read_exact(&mut footer)?;
        file.seek(SeekFrom::End(-(from_end as i64)))?;
        file.write_all(MARK)?;
        file.write_all(&self.checksum.0.to_le_bytes())?;
        file.write_all(&footer)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.checksum = self.checksum.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether a file was sealed and has not changed since.
pub(crate) fn holds(bytes: &[u8]) -> bool {
    place(bytes).is_some_and(|at| {
        bytes[at..at + 8] == *MARK && bytes[at + 8..at + SEAL] == checksum_around(bytes, at).0.to_le_bytes()
    })
}

/// Whether a file has a seal, be it one that does not hold. A damaged mark is a mark.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    const ALIKE: usize = 6;
    let alike = |at: usize| MARK.iter().zip(&bytes[at..at + 8]).filter(|(a, b)| a == b).count();
    place(bytes).is_some_and(|at| alike(at) >= ALIKE)
}

/// Recomputes a file's seal, if it has a place for one.
pub(crate) fn renew(bytes: &mut [u8]) {
    if let Some(at) = place(bytes) {
        let checksum = checksum_around(bytes, at).0.to_le_bytes();
        bytes[at..at + 8].copy_from_slice(MARK);
        bytes[at + 8..at + SEAL].copy_from_slice(&checksum);
    }
}

/// Where the seal is, by the length of the footer.
fn place(bytes: &[u8]) -> Option<usize> {
    let (before_tail, tail) = bytes.split_last_chunk::<TAIL>()?;
    before_tail.len().checked_sub(footer_length(tail))?.checked_sub(SEAL)
}

fn checksum_around(bytes: &[u8], seal: usize) -> Checksum {
    Checksum::NEW.add(&bytes[..seal]).add(&bytes[seal + SEAL..])
}

fn footer_length(tail: &[u8; TAIL]) -> usize {
    let [a, b, c, d, ..] = *tail;
    u32::from_le_bytes([a, b, c, d]) as usize
}
