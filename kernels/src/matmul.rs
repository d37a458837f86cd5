//! Single-threaded matrix products on slices. Parallelism belongs to the callers, which split the
//! work by shape alone, so that every product is the same however many threads there are.

use crate::element::Element;

/// A matrix inside a slice: element `(row, column)` lies at `row · row_stride + column · column_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row after row.
    pub(crate) fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "matrix of {rows}x{columns}");
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Row after row, the rows `stride` apart.
    pub(crate) fn strided(values: &'a [T], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            columns <= stride && (rows == 0 || (rows - 1) * stride + columns <= values.len()),
            "matrix of {rows}x{columns} with rows {stride} apart in {} values",
            values.len()
        );
        Self {
            values,
            rows,
            columns,
            row_stride: stride,
            column_stride: 1,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What becomes of the numbers already in the destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination {
    Overwrite,
    Add,
}

/// `destination = a · b`, or `destination += a · b`. The destination's rows are `stride` apart.
pub(crate) fn multiply<T: Element>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    destination: &mut [T],
    stride: usize,
    mode: Destination,
) {
    let (m, n, k) = (a.rows, b.columns, a.columns);
    assert_eq!(k, b.rows, "inner dimensions");
    if m == 0 || n == 0 {
        return;
    }
    assert!(
        n <= stride && (m - 1) * stride + n <= destination.len(),
        "destination too small for {m}x{n}"
    );
    if k == 0 {
        if mode == Destination::Overwrite {
            for row in destination.chunks_mut(stride).take(m) {
                row[..n].fill(T::zero());
            }
        }
        return;
    }
    #[allow(unsafe_code, reason = "the gemm crate takes pointers")]
    // SAFETY: `Matrix` holds rows × columns elements inside its slice for its strides, the assertion
    // above says the same of the destination, and the borrow rules keep them apart.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            destination.as_mut_ptr(),
            1,
            stride as isize,
            mode == Destination::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
