//! Tiles for machines without vector registers of x86-64: arithmetic on arrays.

use super::kernel::{Columns, Kernel, Rows, Store};
use super::loops::kernel;

kernel!(
    SINGLE,
    single,
    f32,
    8,
    6,
    [f32; 8],
    [],
    |v: &[f32; 8]| *v,
    |v| v,
    broadcast::<f32, 8>,
    fused,
    add
);
kernel!(
    DOUBLE,
    double,
    f64,
    4,
    6,
    [f64; 4],
    [],
    |v: &[f64; 4]| *v,
    |v| v,
    broadcast::<f64, 4>,
    fused,
    add
);

fn broadcast<T: Copy, const N: usize>(value: T) -> [T; N] {
    [value; N]
}

fn fused<T, const N: usize>(a: [T; N], b: [T; N], c: [T; N]) -> [T; N]
where
    T: Copy + std::ops::Mul<Output = T> + std::ops::Add<Output = T>,
{
    std::array::from_fn(|i| c[i] + a[i] * b[i])
}

fn add<T, const N: usize>(a: [T; N], b: [T; N]) -> [T; N]
where
    T: Copy + std::ops::Add<Output = T>,
{
    std::array::from_fn(|i| a[i] + b[i])
}
