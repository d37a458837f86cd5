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

/// Where a product goes.
pub(crate) trait Sink<T> {
    /// Takes the sum over the first (`is_first`) or a further block for one row and some columns.
    fn put(&mut self, row: usize, column: usize, is_first: bool, is_last: bool, values: &[T]);
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
                let rows = height.min(left.rows - index * height);
                for (row, values) in tile.chunks_exact(width).take(rows).enumerate() {
                    sink.put(index * height + row, column, is_first, is_last, &values[..columns]);
                }
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
        for (k, out) in depth.zip(panel.chunks_exact_mut(width)) {
            let row = &self.values[k * self.depth_stride + first..];
            out[..columns].copy_from_slice(&row[..columns]);
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
struct Rows<'a, T> {
    values: &'a mut [T],
    stride: usize,
}

impl<T: Element> Sink<T> for Rows<'_, T> {
    fn put(&mut self, row: usize, column: usize, is_first: bool, _: bool, values: &[T]) {
        let out = &mut self.values[row * self.stride + column..][..values.len()];
        store(out, values, is_first);
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
