//! Transposes matrices, block by block.

pub(crate) mod block;

use crate::element::Element;
use block::BLOCK;

/// to[j · to_step + i] = from[i · from_step + j] for i below `rows` and j below `columns`.
pub(crate) fn transpose<T: Element>(
    from: &[T],
    from_step: usize,
    to: &mut [T],
    to_step: usize,
    [rows, columns]: [usize; 2],
) {
    if rows == 1 && to_step == 1 {
        to[..columns].copy_from_slice(&from[..columns]);
        return;
    }
    if columns == 1 && from_step == 1 {
        to[..rows].copy_from_slice(&from[..rows]);
        return;
    }
    let transpose_block = T::transpose_block();
    for first_row in (0..rows).step_by(BLOCK) {
        for first_column in (0..columns).step_by(BLOCK) {
            let from = &from[first_row * from_step + first_column..];
            let to = &mut to[first_column * to_step + first_row..];
            let [rows, columns] = [BLOCK.min(rows - first_row), BLOCK.min(columns - first_column)];
            if [rows, columns] == [BLOCK; 2] {
                transpose_block(from, from_step, to, to_step);
                continue;
            }
            for i in 0..rows {
                for j in 0..columns {
                    to[j * to_step + i] = from[i * from_step + j];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_transposed() {
        for rows in [1, 3, 8, 9, 16, 21] {
            for columns in [1, 2, 7, 8, 17] {
                let (from_step, to_step) = (columns + 3, rows + 2);
                let from: Vec<f32> = (0..rows * from_step).map(|i| i as f32).collect();
                let mut to = vec![-1.0; columns * to_step];
                transpose(&from, from_step, &mut to, to_step, [rows, columns]);
                for (at, &value) in to.iter().enumerate() {
                    let (j, i) = (at / to_step, at % to_step);
                    let expected = if i < rows { from[i * from_step + j] } else { -1.0 };
                    assert_eq!(value, expected, "{rows}x{columns}");
                }
            }
        }
    }
}
