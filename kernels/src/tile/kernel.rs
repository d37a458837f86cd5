//! What a tile multiplies, and the functions that do.

/// The most rows of a tile on any machine.
pub(crate) const MOST_ROWS: usize = 12;

/// Room for the largest tile.
pub(crate) const LARGEST: usize = MOST_ROWS * 32;

/// The heights a tile may have, in the order in which rows are cut.
pub(super) const HEIGHTS: [usize; 5] = [12, 6, 4, 2, 1];

/// Rows of a left operand that can be anywhere in memory, each in pieces: row i of the product is made
/// of `values[starts[i] + taps[t] + k]` for every t, then every k below `run`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) starts: &'a [usize],
    pub(crate) taps: &'a [usize],
    pub(crate) run: usize,
}

/// Two operands whose rows are the depth: for every pair of starts, `count` steps from there on.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a, T> {
    pub(crate) left: &'a [T],
    pub(crate) right: &'a [T],
    pub(crate) starts: &'a [(usize, usize)],
    pub(crate) count: usize,
    pub(crate) left_step: usize,
    pub(crate) right_step: usize,
}

/// Whether sums are added to what a tile holds, or take its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Replace,
    Add,
}

/// The tiles of one number type on this machine.
#[derive(Clone, Copy)]
pub(crate) struct Kernel<T: 'static> {
    /// The most rows of a tile.
    pub(crate) rows: usize,
    /// Numbers in a vector: the columns of a narrow tile. A wide one has twice as many.
    pub(crate) lanes: usize,
    /// tile[i, j] = Σ_{t, k} left row i · panel[t, k, j], for `panel` `[taps, run, columns]` and `tile`
    /// `[rows, columns]`.
    pub(crate) dots: fn(left: &Rows<'_, T>, panel: &[T], columns: usize, store: Store, tile: &mut [T]),
    /// tile[i, j] = Σ_p left[p, i] · right[p, j], for `rows` rows.
    pub(crate) outer: fn(operands: &Columns<'_, T>, rows: usize, columns: usize, tile: &mut [T]),
    /// Σ_{t, k} values[taps[t] + k] · weights[t, k] for k below `run`: several chains side by side, then
    /// added in order.
    pub(crate) dot: fn(values: &[T], taps: &[usize], run: usize, weights: &[T]) -> T,
}

impl<T> Kernel<T> {
    /// Columns of a wide tile.
    pub(crate) fn columns(&self) -> usize {
        2 * self.lanes
    }

    /// The heights of the tiles that cover `rows` rows.
    pub(crate) fn cut(&self, rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let most = self.rows;
        let mut start = 0;
        std::iter::from_fn(move || {
            let height = HEIGHTS.into_iter().find(|&height| height <= most.min(rows - start))?;
            start += height;
            Some(start - height..start)
        })
    }
}
