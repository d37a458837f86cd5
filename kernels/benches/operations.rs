//! Each operation and its gradient, beside Candle's own where it has one.
//!
//! Throughput is in operations per second: the multiplications and additions of the direct sum, so that a
//! method that needs fewer shows as faster; for the others, numbers. `matrix-product` is what this machine's tiles reach:
//! a convolution's throughput over it is its share of the matrix-product rate.

#![allow(
    missing_docs,
    reason = "the macros of criterion make functions without documentation"
)]

use std::hint::black_box;
use std::time::Duration;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::ModuleT;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::{Activation, BatchNorm, Statistics};
use random::Stream;

fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let draws = Stream::new(seed).uniform(&[0], shape.iter().product());
    Tensor::from_vec(draws, shape, &Device::Cpu).unwrap()
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(format!("{name}-cpu"));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    group
}

fn matrix_product(criterion: &mut Criterion) {
    let mut group = group(criterion, "matrix-product");
    let side = 1024;
    let (a, b) = (numbers(1, &[side, side]), numbers(2, &[side, side]));
    group.throughput(Throughput::Elements(2 * (side as u64).pow(3)));
    group.bench_function("1024", |bench| {
        bench.iter(|| kernels::linear(black_box(&a), &b, None).unwrap())
    });
    group.bench_function("1024 by candle", |bench| {
        bench.iter(|| black_box(&a).matmul(&b.t().unwrap()).unwrap())
    });
    group.finish();
}

/// The convolutions of ResNet-18 and SmallCNN, at a batch of 16.
fn convolution(criterion: &mut Criterion) {
    let mut group = group(criterion, "conv2d");
    for (inputs, outputs, side, kernel, stride) in [
        (32, 32, 26, 3, 1),
        (64, 64, 32, 3, 1),
        (128, 128, 16, 3, 1),
        (256, 256, 8, 3, 1),
        (512, 512, 4, 3, 1),
        (64, 128, 32, 3, 2),
        (64, 128, 32, 1, 2),
    ] {
        let batch = 16;
        let images = numbers(1, &[batch, inputs, side, side]);
        let weights = numbers(2, &[outputs, inputs, kernel, kernel]);
        let padding = kernel / 2;
        let name = format!("{batch}x{inputs}x{side}x{side}-{outputs}-{kernel}x{kernel}-stride{stride}");
        let results = kernels::conv2d(&images, &weights, stride, padding)
            .unwrap()
            .elem_count();
        group.throughput(Throughput::Elements((2 * results * inputs * kernel * kernel) as u64));
        group.bench_function(BenchmarkId::new("forward", &name), |bench| {
            bench.iter(|| kernels::conv2d(black_box(&images), &weights, stride, padding).unwrap());
        });
        group.bench_function(BenchmarkId::new("forward by candle", &name), |bench| {
            bench.iter(|| black_box(&images).conv2d(&weights, padding, stride, 1, 1).unwrap());
        });
        let (x, w) = (Var::from_tensor(&images).unwrap(), Var::from_tensor(&weights).unwrap());
        for (what, x, w) in [
            ("forward and image gradient", x.as_tensor(), &weights),
            ("forward and weight gradient", &images, w.as_tensor()),
        ] {
            group.bench_function(BenchmarkId::new(what, &name), |bench| {
                bench.iter(|| kernels::conv2d(x, w, stride, padding).unwrap().backward().unwrap());
            });
        }
        // Candle computes both gradients whether they are asked for or not.
        group.bench_function(
            BenchmarkId::new("forward and both gradients by candle", &name),
            |bench| {
                bench.iter(|| x.conv2d(&w, padding, stride, 1, 1).unwrap().backward().unwrap());
            },
        );
    }
    group.finish();
}

fn batch_norm(criterion: &mut Criterion) {
    let mut group = group(criterion, "batch-norm");
    let images = Var::from_tensor(&numbers(1, &[16, 64, 32, 32])).unwrap();
    let var = |value: f32| {
        let values = Tensor::new(&[value], &Device::Cpu).unwrap();
        Var::from_tensor(&values.broadcast_as(64).unwrap().contiguous().unwrap()).unwrap()
    };
    let norm = BatchNorm {
        weight: var(1.0).as_tensor().clone(),
        bias: var(0.0).as_tensor().clone(),
        running_mean: var(0.0),
        running_var: var(1.0),
        epsilon: 1e-5,
        momentum: 0.1,
        updates: Default::default(),
    };
    let theirs = candle_nn::BatchNorm::new(
        64,
        var(0.0).as_tensor().clone(),
        var(1.0).as_tensor().clone(),
        var(1.0).as_tensor().clone(),
        var(0.0).as_tensor().clone(),
        1e-5,
    )
    .unwrap();
    group.throughput(Throughput::Elements(images.elem_count() as u64));
    for statistics in [Statistics::Running, Statistics::BatchAndUpdate] {
        group.bench_function(
            BenchmarkId::new("with relu, both ways", format!("{statistics:?}")),
            |bench| {
                bench.iter(|| {
                    let out = kernels::batch_norm(&images, &norm, statistics, Activation::Relu).unwrap();
                    out.backward().unwrap()
                });
            },
        );
    }
    group.bench_function("with relu, both ways, by candle", |bench| {
        bench.iter(|| {
            theirs
                .forward_t(&images, true)
                .unwrap()
                .relu()
                .unwrap()
                .backward()
                .unwrap()
        });
    });
    group.finish();
}

fn others(criterion: &mut Criterion) {
    let mut group = group(criterion, "others");
    let images = Var::from_tensor(&numbers(1, &[128, 32, 24, 24])).unwrap();
    group.throughput(Throughput::Elements(images.elem_count() as u64));
    group.bench_function("max-pool, both ways", |bench| {
        bench.iter(|| kernels::max_pool2d(&images, 2).unwrap().backward().unwrap());
    });
    group.bench_function("max-pool, both ways, by candle", |bench| {
        bench.iter(|| images.max_pool2d(2).unwrap().backward().unwrap());
    });
    group.bench_function("mean-pool, both ways", |bench| {
        bench.iter(|| kernels::avg_pool2d(&images, 24).unwrap().backward().unwrap());
    });
    group.bench_function("relu, both ways", |bench| {
        bench.iter(|| kernels::relu(&images).unwrap().backward().unwrap());
    });
    let points = numbers(2, &[128, 3, 32, 32]);
    let (lower, upper) = ((&points - 0.03).unwrap(), (&points + 0.03).unwrap());
    let gradient = (numbers(3, &[128, 3, 32, 32]) - 0.5).unwrap();
    group.throughput(Throughput::Elements(points.elem_count() as u64));
    group.bench_function("sign-step", |bench| {
        bench.iter(|| kernels::sign_step(black_box(&points), &gradient, 0.01, &lower, &upper).unwrap());
    });
    group.bench_function("sign-step by candle", |bench| {
        bench.iter(|| {
            let moved = (&points + (gradient.sign().unwrap() * 0.01).unwrap()).unwrap();
            moved.maximum(&lower).unwrap().minimum(&upper).unwrap()
        });
    });
    let logits = Var::from_tensor(&numbers(4, &[1024, 10])).unwrap();
    let labels = Tensor::arange(0u32, 1024, &Device::Cpu).unwrap();
    let labels = (labels.to_dtype(DType::F32).unwrap() / 103.0)
        .unwrap()
        .to_dtype(DType::U32)
        .unwrap();
    group.throughput(Throughput::Elements(logits.elem_count() as u64));
    group.bench_function("cross-entropy, both ways", |bench| {
        bench.iter(|| kernels::cross_entropy(&logits, &labels).unwrap().backward().unwrap());
    });
    group.bench_function("cross-entropy, both ways, by candle", |bench| {
        bench.iter(|| {
            candle_nn::loss::cross_entropy(&logits, &labels)
                .unwrap()
                .backward()
                .unwrap()
        });
    });
    let inputs = Var::from_tensor(&numbers(5, &[128, 1024])).unwrap();
    let weights = Var::from_tensor(&numbers(6, &[200, 1024])).unwrap();
    group.throughput(Throughput::Elements(3 * 2 * 128 * 1024 * 200));
    group.bench_function("linear, both ways", |bench| {
        bench.iter(|| kernels::linear(&inputs, &weights, None).unwrap().backward().unwrap());
    });
    group.bench_function("linear, both ways, by candle", |bench| {
        bench.iter(|| inputs.matmul(&weights.t().unwrap()).unwrap().backward().unwrap());
    });
    group.finish();
}

criterion_group!(benches, matrix_product, convolution, batch_norm, others);
criterion_main!(benches);
