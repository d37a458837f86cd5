//! Matrix products in register tiles.
//!
//! The right operand (weights) is packed once into panels as wide as a tile. The left one is read where
//! it lies: every row is a start, and the same pieces ("taps") from there on. So a convolution over
//! images whose channels lie side by side needs no matrix of image columns.
//!
//! A number of the result is summed in blocks of the depth, each a chain of its own, added in order,
//! whatever else is computed with it.

use std::ops::Range;

use crate::element::Element;
use crate::tile::{Columns, Kernel, LARGEST, Rows, Store};

/// The most depth that is summed as one chain: keeps rounding small, and a panel of it in the caches.
pub(crate) const CHAIN: usize = 512;

/// Numbers past the end of a right operand that a tile may read.
pub(crate) const SLACK: usize = 64;

/// A right operand `[depth, columns]`, in the order in which tiles read it, and where its depth is in
/// the rows of the left one.
#[derive(Debug, Clone)]
pub(crate) struct Packed<T> {
    values: Vec<T>,
    columns: usize,
    depth: usize,
    blocks: Vec<Block>,
}

/// Taps of one length that are summed as one chain.
#[derive(Debug, Clone)]
struct Block {
    taps: Vec<usize>,
    run: usize,
    /// Their place in the depth.
    depth: Range<usize>,
}

/// The length of the chains, equal but for the last, in which the run of a tap is summed.
pub(crate) fn chain(run: usize) -> usize {
    run.div_ceil(run.div_ceil(CHAIN).max(1)).max(1)
}

fn blocks(taps: &[usize], run: usize) -> Vec<Block> {
    let piece = chain(run);
    let mut blocks: Vec<Block> = Vec::new();
    let mut depth = 0;
    for &tap in taps {
        for start in (0..run).step_by(piece) {
            let length = piece.min(run - start);
            match blocks.last_mut() {
                Some(block) if block.run == length && block.depth.len() + length <= CHAIN => {
                    block.taps.push(tap + start);
                    block.depth.end += length;
                }
                _ => blocks.push(Block {
                    taps: vec![tap + start],
                    run: length,
                    depth: depth..depth + length,
                }),
            }
            depth += length;
        }
    }
    blocks
}

/// A panel of columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) column: usize,
    /// Columns there are.
    pub(crate) columns: usize,
    /// Columns of the tile: those there are, and zeros.
    pub(crate) width: usize,
}

impl<T: Element> Packed<T> {
    /// Packs `value(k, column)` for rows in which depth k is at tap `k / run`, place `k % run`.
    pub(crate) fn new(taps: &[usize], run: usize, columns: usize, value: impl Fn(usize, usize) -> T) -> Self {
        let mut packed = Self::zeros(taps, run, columns);
        for panel in panels::<T>(columns) {
            let rows = packed.values[panel.column * packed.depth..].chunks_exact_mut(panel.width);
            for (k, row) in rows.take(packed.depth).enumerate() {
                for (column, number) in row[..panel.columns].iter_mut().enumerate() {
                    *number = value(k, panel.column + column);
                }
            }
        }
        packed
    }

    /// As [`new`](Self::new) with zeros, to be set by [`panels_mut`](Self::panels_mut).
    pub(crate) fn zeros(taps: &[usize], run: usize, columns: usize) -> Self {
        let depth = taps.len() * run;
        let width = panels::<T>(columns)
            .last()
            .map_or(0, |panel| panel.column + panel.width);
        Self {
            values: vec![T::zero(); width * depth],
            columns,
            depth,
            blocks: blocks(taps, run),
        }
    }

    /// The numbers `[depth, width]` of each panel.
    pub(crate) fn panels_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        // All panels but the last are wide.
        let size = (T::kernel().columns() * self.depth).max(1);
        self.values.chunks_mut(size)
    }

    /// One tile: the rows that begin at `starts`.
    fn dots(&self, kernel: &Kernel<T>, values: &[T], starts: &[usize], panel: Panel, tile: &mut [T]) {
        let width = panel.width;
        let numbers = &self.values[panel.column * self.depth..];
        for (index, block) in self.blocks.iter().enumerate() {
            let left = Rows {
                values,
                starts,
                taps: &block.taps,
                run: block.run,
            };
            let store = if index == 0 { Store::Replace } else { Store::Add };
            let numbers = &numbers[block.depth.start * width..block.depth.end * width];
            (kernel.dots)(&left, numbers, width, store, tile);
        }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn panels(&self) -> impl Iterator<Item = Panel> + use<T> {
        panels::<T>(self.columns)
    }
}

fn width_of<T: Element>(columns: usize) -> usize {
    let kernel = T::kernel();
    if columns <= kernel.lanes {
        kernel.lanes
    } else {
        kernel.columns()
    }
}

fn panels<T: Element>(columns: usize) -> impl Iterator<Item = Panel> {
    let wide = T::kernel().columns();
    (0..columns).step_by(wide).map(move |column| Panel {
        column,
        columns: wide.min(columns - column),
        width: width_of::<T>(columns - column),
    })
}

/// Part of a product.
pub(crate) struct Tile<'a, T> {
    values: &'a [T; LARGEST],
    width: usize,
    /// Its rows in the product.
    pub(crate) rows: Range<usize>,
    /// Its first column, and how many there are.
    pub(crate) column: usize,
    pub(crate) columns: usize,
}

impl<T> Tile<'_, T> {
    /// The numbers of a row of the product.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &[T] {
        &self.values[(row - self.rows.start) * self.width..][..self.columns]
    }
}

/// Computes the product for rows that begin at `starts`, for all columns, and hands it out in tiles.
pub(crate) fn multiply<T: Element>(
    values: &[T],
    starts: &[usize],
    right: &Packed<T>,
    mut sink: impl FnMut(&Tile<'_, T>),
) {
    for panel in right.panels() {
        multiply_panel(values, starts, right, panel, &mut sink);
    }
}

/// As [`multiply`], for the columns of one panel.
pub(crate) fn multiply_panel<T: Element>(
    values: &[T],
    starts: &[usize],
    right: &Packed<T>,
    panel: Panel,
    mut sink: impl FnMut(&Tile<'_, T>),
) {
    let kernel = T::kernel();
    let mut tile = [T::zero(); LARGEST];
    let width = panel.width;
    for rows in kernel.cut(starts.len()) {
        right.dots(&kernel, values, &starts[rows.clone()], panel, &mut tile);
        let tile = Tile {
            values: &tile,
            width,
            rows,
            column: panel.column,
            columns: panel.columns,
        };
        sink(&tile);
    }
}

/// As [`multiply_panel`], into `out` `[rows, width of the panel]`.
pub(crate) fn multiply_panel_into<T: Element>(
    values: &[T],
    starts: &[usize],
    right: &Packed<T>,
    panel: Panel,
    out: &mut [T],
) {
    let kernel = T::kernel();
    for rows in kernel.cut(starts.len()) {
        let out = &mut out[rows.start * panel.width..rows.end * panel.width];
        right.dots(&kernel, values, &starts[rows], panel, out);
    }
}

/// Room in which [`multiply_columns`] lays out its operands.
#[derive(Default)]
pub(crate) struct Room<T> {
    left: Vec<T>,
    right: Vec<T>,
}

/// Computes the product of two operands whose rows are the depth, `rows` by `columns`, as one chain.
/// Reads up to [`SLACK`] numbers past the last column of the right operand.
pub(crate) fn multiply_columns<T: Element>(
    operands: &Columns<'_, T>,
    rows: usize,
    columns: usize,
    room: &mut Room<T>,
    mut sink: impl FnMut(&Tile<'_, T>),
) {
    let kernel = T::kernel();
    let mut tile = [T::zero(); LARGEST];
    let depth = operands.starts.len() * operands.count;
    // Rows that are far apart would evict each other from the caches, so each tile's numbers are put
    // side by side: the left ones once, the right ones a panel at a time.
    room.left.clear();
    for rows in kernel.cut(rows) {
        for &(start, _) in operands.starts {
            for p in 0..operands.count {
                let start = start + p * operands.left_step + rows.start;
                room.left.extend_from_slice(&operands.left[start..start + rows.len()]);
            }
        }
    }
    for panel in panels::<T>(columns) {
        room.right.clear();
        for &(_, start) in operands.starts {
            for p in 0..operands.count {
                let start = start + p * operands.right_step + panel.column;
                room.right
                    .extend_from_slice(&operands.right[start..start + panel.width]);
            }
        }
        for rows in kernel.cut(rows) {
            let part = Columns {
                left: &room.left[rows.start * depth..rows.end * depth],
                right: &room.right,
                starts: &[(0, 0)],
                count: depth,
                left_step: rows.len(),
                right_step: panel.width,
            };
            (kernel.outer)(&part, rows.len(), panel.width, &mut tile);
            let tile = Tile {
                values: &tile,
                width: panel.width,
                rows,
                column: panel.column,
                columns: panel.columns,
            };
            sink(&tile);
        }
    }
}
