//! Every workload on every network. Throughput is images per second.
//!
//! The whole steps of WRN-34-10 take a quarter of a minute each and are left out unless
//! `RAMPART_BENCH_WIDE=1` is set.

#![allow(
    missing_docs,
    reason = "the macros of criterion make functions without documentation"
)]

use std::time::Duration;

use benches::{Bench, SUBJECTS, WORKLOADS, Workload};
use candle_core::Device;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group};

fn workloads(criterion: &mut Criterion) {
    let wide = std::env::var_os("RAMPART_BENCH_WIDE").is_some_and(|value| value == "1");
    for workload in WORKLOADS {
        let whole = matches!(workload, Workload::AtStep | Workload::TradesStep | Workload::MartStep);
        let mut group = criterion.benchmark_group(workload.name());
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(2));
        for subject in SUBJECTS {
            if whole && subject.network == "wrn-34-10" && !wide {
                continue;
            }
            // Made when it is run, so that a filter does not pay for the others.
            let mut bench = None;
            group.throughput(Throughput::Elements(subject.batch as u64));
            group.bench_function(
                BenchmarkId::new(subject.network, format!("{}-cpu", subject.batch)),
                |timer| {
                    let bench = bench
                        .get_or_insert_with(|| Bench::new(workload, &subject, subject.batch, &Device::Cpu).unwrap());
                    timer.iter(|| bench.step().unwrap());
                },
            );
        }
        group.finish();
    }
}

fn main() {
    kernels::keep_candle_on_one_thread();
    all();
    Criterion::default().configure_from_args().final_summary();
}

criterion_group!(all, workloads);
