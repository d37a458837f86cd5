//! Selecting and replacing the rows of a tensor.

use candle_core::{Result, Tensor};

/// The rows of a tensor at these places.
pub fn select_rows(tensor: &Tensor, rows: &[usize]) -> Result<Tensor> {
    let places: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
    tensor.index_select(&Tensor::new(places, tensor.device())?, 0)
}

/// The tensor with its row `rows[i]` replaced by row i of `new`, for every i.
pub fn replace_rows(tensor: &Tensor, rows: &[usize], new: &Tensor) -> Result<Tensor> {
    let old = tensor.dim(0)?;
    let mut source: Vec<usize> = (0..old).collect();
    for (place, &row) in rows.iter().enumerate() {
        source[row] = old + place;
    }
    select_rows(&Tensor::cat(&[tensor, new], 0)?, &source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn rows_are_taken_and_put_back() {
        let tensor = Tensor::new(&[[1f64, 2.0], [3.0, 4.0], [5.0, 6.0]], &Device::Cpu).unwrap();
        let part = select_rows(&tensor, &[2, 0]).unwrap();
        assert_eq!(part.to_vec2::<f64>().unwrap(), [[5.0, 6.0], [1.0, 2.0]]);
        assert_eq!(
            replace_rows(&tensor, &[2, 0], &part).unwrap().to_vec2::<f64>().unwrap(),
            tensor.to_vec2::<f64>().unwrap()
        );
        let swapped = replace_rows(&tensor, &[0, 2], &part).unwrap();
        assert_eq!(swapped.to_vec2::<f64>().unwrap(), [[5.0, 6.0], [3.0, 4.0], [1.0, 2.0]]);
    }
}
