//! Recorded random draws in place of a stream.

use candle_core::{DType, Tensor};

use crate::survivors::Draws;

/// Recorded draws, one row for each example of the whole batch, whose ids count from 0.
pub(super) struct Rows(pub(super) Vec<Vec<Vec<f32>>>);

impl Rows {
    /// From `[requests, examples, …]`.
    pub(super) fn read(draws: &Tensor) -> Self {
        let draws = draws.flatten_from(2).unwrap().to_dtype(DType::F32).unwrap();
        Self(draws.to_vec3().unwrap())
    }
}

impl Draws for Rows {
    fn uniform(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32> {
        let draws = &self.0[index as usize];
        let rows: Vec<f32> = ids.iter().flat_map(|&id| draws[id as usize].clone()).collect();
        assert_eq!(rows.len(), ids.len() * len);
        rows
    }

    fn normal(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32> {
        self.uniform(index, ids, len)
    }
}

/// One draw of every request for all examples alike, as the authors' batch shares its squares.
pub(super) struct Shared(pub(super) Vec<Vec<f32>>);

impl Draws for Shared {
    fn uniform(&self, index: u64, ids: &[u64], len: usize) -> Vec<f32> {
        assert_eq!(self.0[index as usize].len(), len);
        self.0[index as usize].repeat(ids.len())
    }

    fn normal(&self, _: u64, _: &[u64], _: usize) -> Vec<f32> {
        unreachable!("square draws nothing normal under linf")
    }
}
