//! Matrix products whose right operand is made on the fly, a narrow panel at a time.
//!
//! The left operand (weights) is packed once. The right one is asked for in panels as wide as a tile
//! and as deep as a block, which stay in the first-level cache while all rows go past. A number of the
//! result is summed over the blocks of the depth in order, whatever else is computed with it.

use rayon::prelude::*;

use crate::element::Element;
use crate::tile::LARGEST;

/// The depth of a block: a panel of it fills half of a first-level cache.
const DEPTH: usize = 256;

/// The left operand, in the order in which tiles read it.
#[derive(Debug, Clone)]
pub(crate) struct Packed<T> {
    values: Vec<T>,
    rows: usize,
    depth: usize,
}

/// How a depth is cut into blocks of nearly equal size.
fn blocks(depth: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let size = depth.div_ceil(depth.div_ceil(DEPTH).max(1)).max(1);
    (0..depth)
        .step_by(size)
        .map(move |start| start..depth.min(start + size))
}

impl<T: Element> Packed<T> {
    /// Packs the matrix `[rows, depth]` of `value(row, k)`.
    pub(crate) fn new(rows: usize, depth: usize, value: impl Fn(usize, usize) -> T) -> Self {
        let height = T::kernel().rows;
        let mut values = Vec::with_capacity(rows.next_multiple_of(height) * depth);
        for block in blocks(depth) {
            for first in (0..rows).step_by(height) {
                for k in block.clone() {
                    let column = (first..first + height).map(|row| match row < rows {
                        true => value(row, k),
                        false => T::zero(),
                    });
                    values.extend(column);
                }
            }
        }
        Self { values, rows, depth }
    }

    pub(crate) fn empty() -> Self {
        Self {
            values: Vec::new(),
            rows: 0,
            depth: 0,
        }
    }

    /// Packs the matrix `[rows, depth]` whose numbers from `(row, k)` on, at least one, are
    /// `run(row, k)`.
    pub(crate) fn fill<'a>(&mut self, rows: usize, depth: usize, run: impl Fn(usize, usize) -> &'a [T]) {
        let height = T::kernel().rows;
        let padded_rows = rows.next_multiple_of(height);
        self.values.resize(padded_rows * depth, T::zero());
        (self.rows, self.depth) = (rows, depth);
        for block in blocks(depth) {
            let strips = &mut self.values[padded_rows * block.start..padded_rows * block.end];
            for (index, strip) in strips.chunks_exact_mut(block.len() * height).enumerate() {
                for i in 0..height {
                    let row = index * height + i;
                    let mut k = block.start;
                    while k < block.end {
                        let out = strip[(k - block.start) * height + i..].iter_mut().step_by(height);
                        if row >= rows {
                            out.for_each(|out| *out = T::zero());
                            break;
                        }
                        let from = run(row, k);
                        let count = from.len().min(block.end - k);
                        for (out, value) in out.zip(&from[..count]) {
                            *out = *value;
                        }
                        k += count;
                    }
                }
            }
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }
}

/// The right operand `[depth, columns]`.
pub(crate) trait Panels<T> {
    fn columns(&self) -> usize;

    /// Writes columns `first..` (as many as a tile has; those past the end may be anything) of the rows
    /// in `depth` to `panel`, row after row, `width` apart. May write up to `width` numbers too many.
    fn fill(&self, depth: std::ops::Range<usize>, first: usize, width: usize, panel: &mut [T]);
}

/// Sums over one block of the depth.
pub(crate) struct Tile<'a, T> {
    values: &'a [T; LARGEST],
    width: usize,
    /// The first row, and how many there are.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// The first column, and how many there are.
    pub(crate) column: usize,
    pub(crate) columns: usize,
    /// Whether there was no block before.
    pub(crate) is_first: bool,
    /// Whether there is no block after.
    pub(crate) is_last: bool,
}

impl<T: Element> Tile<'_, T> {
    /// Part of a row: `count` columns from `column` on, both counted in the tile.
    #[inline]
    pub(crate) fn row(&self, row: usize, column: usize, count: usize) -> &[T] {
        &self.values[row * self.width + column..][..count]
    }
}

/// Where a product goes.
pub(crate) trait Sink<T> {
    /// Takes the sums over one block of the depth for a tile of rows and columns.
    fn put(&mut self, tile: &Tile<'_, T>);
}

/// Computes `left · right` and hands it to `sink` in tiles.
pub(crate) fn multiply<T: Element>(
    left: &Packed<T>,
    right: &impl Panels<T>,
    scratch: &mut Vec<T>,
    sink: &mut impl Sink<T>,
) {
    let kernel = T::kernel();
    let (height, width) = (kernel.rows, kernel.columns);
    scratch.resize((DEPTH + 1) * width, T::zero());
    let mut tile = [T::zero(); LARGEST];
    let padded_rows = left.rows.next_multiple_of(height);
    for block in blocks(left.depth) {
        let depth = block.len();
        let (is_first, is_last) = (block.start == 0, block.end == left.depth);
        let left_block = &left.values[padded_rows * block.start..padded_rows * block.end];
        for column in (0..right.columns()).step_by(width) {
            right.fill(block.clone(), column, width, scratch);
            let panel = &scratch[..depth * width];
            let columns = width.min(right.columns() - column);
            for (index, strip) in left_block.chunks_exact(depth * height).enumerate() {
                (kernel.run)(strip, panel, &mut tile);
                sink.put(&Tile {
                    values: &tile,
                    width,
                    row: index * height,
                    rows: height.min(left.rows - index * height),
                    column,
                    columns,
                    is_first,
                    is_last,
                });
            }
        }
    }
}

/// A right operand that lies in memory: element `(k, column)` at `k · depth_stride + column · column_stride`,
/// one of which is 1.
pub(crate) struct Strided<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) columns: usize,
    pub(crate) depth_stride: usize,
    pub(crate) column_stride: usize,
}

impl<T: Element> Panels<T> for Strided<'_, T> {
    fn columns(&self) -> usize {
        self.columns
    }

    fn fill(&self, depth: std::ops::Range<usize>, first: usize, width: usize, panel: &mut [T]) {
        let columns = width.min(self.columns - first);
        if self.depth_stride == 1 {
            for column in 0..columns {
                let from = &self.values[(first + column) * self.column_stride..][depth.clone()];
                for (out, value) in panel[column..].iter_mut().step_by(width).zip(from) {
                    *out = *value;
                }
            }
            return;
        }
        // Whole rows, where the matrix goes on that far, are copied in registers.
        let end = (depth.end - 1) * self.depth_stride + first + width;
        match width {
            16 if end <= self.values.len() => return self.copy::<16>(depth, first, panel),
            32 if end <= self.values.len() => return self.copy::<32>(depth, first, panel),
            _ => {}
        }
        for (k, out) in depth.zip(panel.chunks_exact_mut(width)) {
            let row = &self.values[k * self.depth_stride + first..];
            out[..columns].copy_from_slice(&row[..columns]);
        }
    }
}

impl<T: Element> Strided<'_, T> {
    fn copy<const W: usize>(&self, depth: std::ops::Range<usize>, first: usize, panel: &mut [T]) {
        for (k, out) in depth.zip(panel.chunks_exact_mut(W)) {
            out.copy_from_slice(&self.values[k * self.depth_stride + first..][..W]);
        }
    }
}

/// The whole product `[rows, columns]`, a block of columns per task.
pub(crate) fn multiply_in_columns<T: Element>(left: &Packed<T>, right: &Strided<'_, T>) -> Vec<T> {
    const COLUMNS: usize = 64;
    const SMALL: usize = 1 << 17;
    let (rows, columns) = (left.rows, right.columns);
    let width = match rows * columns * left.depth <= SMALL {
        true => columns.max(1),
        false => COLUMNS,
    };
    let task = |first: usize| {
        let part = Strided {
            values: &right.values[first * right.column_stride..],
            columns: width.min(columns - first),
            ..*right
        };
        let mut values = vec![T::zero(); rows * part.columns];
        let mut sink = Rows {
            values: &mut values,
            stride: part.columns,
        };
        multiply(left, &part, &mut Vec::new(), &mut sink);
        values
    };
    if width == columns {
        return task(0);
    }
    let starts: Vec<usize> = (0..columns).step_by(width).collect();
    let parts: Vec<Vec<T>> = starts.par_iter().map(|&first| task(first)).collect();
    let mut out = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        for part in &parts {
            let width = part.len() / rows;
            out.extend_from_slice(&part[row * width..(row + 1) * width]);
        }
    }
    out
}

/// A result that lies in memory, row after row.
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a mut [T],
    pub(crate) stride: usize,
}

impl<T: Element> Sink<T> for Rows<'_, T> {
    fn put(&mut self, tile: &Tile<'_, T>) {
        for row in 0..tile.rows {
            let out = &mut self.values[(tile.row + row) * self.stride + tile.column..][..tile.columns];
            store(out, tile.row(row, 0, tile.columns), tile.is_first);
        }
    }
}

/// Writes a block's sum, or adds it to the blocks before.
#[inline]
pub(crate) fn store<T: Element>(out: &mut [T], values: &[T], is_first: bool) {
    if is_first {
        out.copy_from_slice(values);
    } else {
        for (out, value) in out.iter_mut().zip(values) {
            *out += *value;
        }
    }
}
