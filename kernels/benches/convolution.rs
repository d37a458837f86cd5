//! 3×3 convolutions at the shapes of ResNet-18, and their gradients. Throughput counts the
//! multiplications and additions of the direct sum, so that a method that needs fewer shows as faster.

#![allow(
    missing_docs,
    reason = "the macros of criterion make functions without documentation"
)]

use std::hint::black_box;

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use random::Stream;

fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let draws = Stream::new(seed).uniform(&[0], shape.iter().product());
    Tensor::from_vec(draws, shape, &Device::Cpu).unwrap()
}

fn convolution(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conv2d-3x3-cpu");
    group.sample_size(10);
    for (batch, channels, side) in [(16, 64, 32), (16, 128, 16), (16, 256, 8), (16, 512, 4)] {
        let images = numbers(1, &[batch, channels, side, side]);
        let weights = numbers(2, &[channels, channels, 3, 3]);
        let name = format!("{batch}x{channels}x{side}x{side}");
        group.throughput(Throughput::Elements((2 * images.elem_count() * channels * 9) as u64));
        group.bench_function(BenchmarkId::new("forward", &name), |bench| {
            bench.iter(|| kernels::conv2d(black_box(&images), &weights, 1, 1).unwrap());
        });
        let x = Var::from_tensor(&images).unwrap();
        let w = Var::from_tensor(&weights).unwrap();
        for (what, x, w) in [
            ("forward and image gradient", x.as_tensor(), &weights),
            ("forward and weight gradient", &images, w.as_tensor()),
        ] {
            group.bench_function(BenchmarkId::new(what, &name), |bench| {
                bench.iter(|| kernels::conv2d(x, w, 1, 1).unwrap().backward().unwrap());
            });
        }
        group.bench_function(BenchmarkId::new("forward by candle", &name), |bench| {
            bench.iter(|| images.conv2d(&weights, 1, 1, 1, 1).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, convolution);
criterion_main!(benches);
