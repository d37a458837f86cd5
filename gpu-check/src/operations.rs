//! Every operation on the GPU against the CPU's, results and gradients.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor, Var};
use datasets::{Augment, Crop, Padding};
use defenses::{Decay, Optimizer};
use kernels::device::Precision;
use kernels::resident::{self, Cut};
use kernels::{Activation, BatchNorm, Statistics};
use models::{Parameter, Role};
use random::{Purpose, Stream};

use crate::context::{Context, precise};
use crate::report::{Found, Report, deviation, differing};

/// Rounding of f32 sums of a few thousand terms.
const ROUNDING: f64 = 2e-5;

fn numbers(seed: u64, shape: &[usize]) -> Tensor {
    let draws = Stream::new(seed).uniform(&[0], shape.iter().product());
    let values: Vec<f32> = draws.iter().map(|&u| 2.0 * u - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("as many numbers as the shape needs")
}

/// Result and gradients of Σ w · result, w fixed.
fn run(
    arguments: &[Tensor],
    device: &Device,
    f: &dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = arguments
        .iter()
        .map(|argument| Var::from_tensor(&argument.to_device(device)?));
    let vars = vars.collect::<candle_core::Result<Vec<Var>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tensors)?;
    let weights = numbers(99, out.dims()).to_device(device)?;
    let gradients = (&out * weights)?.sum_all()?.backward()?;
    let mut all = vec![out.detach()];
    for (index, var) in vars.iter().enumerate() {
        match gradients.get(var) {
            Some(gradient) => all.push(gradient.clone()),
            None => anyhow::bail!("argument {index} has no gradient"),
        }
    }
    Ok(all)
}

fn compare(
    context: &Context,
    arguments: &[Tensor],
    allowed: f64,
    f: &dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Result<Found> {
    let (ours, theirs) = (run(arguments, &context.device, f)?, run(arguments, &Device::Cpu, f)?);
    let mut worst = 0f64;
    for (a, b) in ours.iter().zip(&theirs) {
        let is = deviation(a, b)?;
        worst = if is <= worst { worst } else { is };
    }
    Ok(Found::Deviation { is: worst, allowed })
}

pub(crate) fn check(context: &Context, report: &mut Report) {
    convolutions(context, report);
    precise(Precision::F32);
    let images = numbers(1, &[6, 5, 9, 8]);
    let mut same = |name: &str, arguments: &[Tensor], f: &dyn Fn(&[Tensor]) -> candle_core::Result<Tensor>| {
        report.add("operations", name, || compare(context, arguments, ROUNDING, f));
    };
    for activation in [Activation::None, Activation::Relu] {
        same(
            &format!("add_bias {activation:?}"),
            &[images.clone(), numbers(2, &[5])],
            &|t| kernels::add_bias(&t[0], &t[1], activation),
        );
        for statistics in [Statistics::Running, Statistics::Batch, Statistics::BatchAndUpdate] {
            let weight = numbers(3, &[5]);
            let arguments = [images.clone(), weight, numbers(4, &[5])];
            same(&format!("batch_norm {statistics:?} {activation:?}"), &arguments, &|t| {
                let norm = norm(t)?;
                let out = kernels::batch_norm(&t[0], &norm, statistics, activation)?;
                // Running statistics take part, so that they are compared as well.
                let moved = (norm.running_mean.as_tensor() + norm.running_var.as_tensor())?;
                out.broadcast_add(&moved.detach().reshape((1, 5, 1, 1))?)
            });
        }
    }
    same("relu", std::slice::from_ref(&images), &|t| kernels::relu(&t[0]));
    same("add_relu", &[images.clone(), numbers(5, &[6, 5, 9, 8])], &|t| {
        kernels::add_relu(&t[0], &t[1])
    });
    same("max_pool2d", std::slice::from_ref(&images), &|t| {
        kernels::max_pool2d(&t[0], 2)
    });
    same("avg_pool2d", &[images], &|t| kernels::avg_pool2d(&t[0], 3));
    same(
        "linear",
        &[numbers(6, &[33, 70]), numbers(7, &[12, 70]), numbers(8, &[12])],
        &|t| kernels::linear(&t[0], &t[1], Some(&t[2])),
    );
    let logits = (numbers(9, &[40, 10]) * 20.0).expect("finite");
    same("log_softmax", std::slice::from_ref(&logits), &|t| {
        kernels::log_softmax(&t[0])
    });
    let labels: Vec<u32> = (0..40).map(|b| b % 10).collect();
    same("cross_entropy", &[logits], &|t| {
        kernels::cross_entropy(&t[0], &Tensor::new(labels.clone(), t[0].device())?)
    });
    resident_operations(context, report);
}

fn norm(t: &[Tensor]) -> candle_core::Result<BatchNorm> {
    let device = t[0].device();
    Ok(BatchNorm {
        weight: t[1].clone(),
        bias: t[2].clone(),
        running_mean: Var::from_tensor(&numbers(20, &[5]).to_device(device)?)?,
        running_var: Var::from_tensor(&numbers(21, &[5]).affine(0.5, 1.0)?.to_device(device)?)?,
        epsilon: 1e-5,
        momentum: 0.1,
        updates: Default::default(),
    })
}

fn convolutions(context: &Context, report: &mut Report) {
    let shapes: &[([usize; 4], [usize; 4], usize, usize)] = &[
        ([8, 3, 32, 32], [64, 3, 3, 3], 1, 1),
        ([4, 64, 16, 16], [128, 64, 3, 3], 2, 1),
        ([4, 64, 16, 16], [128, 64, 1, 1], 2, 0),
        ([3, 17, 9, 11], [5, 17, 5, 5], 1, 2),
        ([8, 32, 26, 26], [64, 32, 3, 3], 1, 0),
        ([16, 512, 4, 4], [512, 512, 3, 3], 1, 1),
    ];
    for &(precision, name) in context.precisions() {
        // 10 bits of mantissa keep 5e-4, 8 bits 4e-3; sums average it out, and gradients are sums of sums.
        let allowed = match precision {
            Precision::F32 => ROUNDING,
            Precision::Tf32 => 3e-3,
            Precision::Bf16 => 2e-2,
        };
        for &(images, weights, stride, padding) in shapes {
            precise(precision);
            report.add(
                "operations",
                format!("conv2d {name} {images:?} {weights:?} /{stride} +{padding}"),
                || {
                    let arguments = [numbers(1, &images), numbers(2, &weights)];
                    compare(context, &arguments, allowed, &|t| {
                        kernels::conv2d(&t[0], &t[1], stride, padding)
                    })
                },
            );
        }
    }
}

/// Kernels that only a GPU has, against the same computation on the CPU.
fn resident_operations(context: &Context, report: &mut Report) {
    draws(context, report);
    report.add("operations", "sign step, bit by bit", || sign_step(context));
    for padding in [Padding::Zero, Padding::Reflect] {
        report.add("operations", format!("crop and flip {padding:?}, bit by bit"), || {
            crop_and_flip(context, padding)
        });
    }
    report.add("operations", "gradient descent, three steps", || descent(context));
    report.add("operations", "f64 on a GPU is refused by name", || {
        double_precision(context)
    });
}

/// Where a check needs a kernel of a GPU.
fn no_kernel() -> Found {
    Found::Nothing("the CPU has no such kernel".into())
}

fn draws(context: &Context, report: &mut Report) {
    for normal in [false, true] {
        let what = if normal { "normal" } else { "uniform" };
        report.add("operations", format!("{what} draws, bit by bit"), || {
            let ids: Vec<u64> = (0..64).map(|id| id * 1_000_003).collect();
            let stream = Stream::new(5).of(Purpose::AttackStart);
            let like = Tensor::zeros((64, 3, 32, 32), candle_core::DType::F32, &context.device)?;
            let key = stream.key().unwrap_or_default();
            let Some(draws) = resident::draws(&like, key, &ids, normal)? else {
                return Ok(no_kernel());
            };
            let expected = if normal {
                stream.normal(&ids, 3072)
            } else {
                stream.uniform(&ids, 3072)
            };
            let expected = Tensor::from_vec(expected, (64, 3, 32, 32), &Device::Cpu)?;
            Ok(Found::Deviation {
                is: differing(&draws, &expected)?,
                allowed: 0.0,
            })
        });
    }
}

fn sign_step(context: &Context) -> Result<Found> {
    let on = |device: &Device| -> Result<Tensor> {
        let [v, g] = [1, 2].map(|seed| numbers(seed, &[10, 3, 8, 8]).to_device(device));
        let (v, g) = (v?, g?);
        let (lower, upper) = ((&v - 0.1)?, (&v + 0.1)?);
        Ok(attacks::ball::sign_step(&v, &g, 0.07, &lower, &upper)?)
    };
    Ok(Found::Deviation {
        is: differing(&on(&context.device)?, &on(&Device::Cpu)?)?,
        allowed: 0.0,
    })
}

fn crop_and_flip(context: &Context, padding: Padding) -> Result<Found> {
    let bytes: Vec<u8> = (0..20 * 3072).map(|i| (i * 7 % 256) as u8).collect();
    let images = Tensor::from_slice(&bytes, (20, 3, 32, 32), &context.device)?;
    let augment = Augment {
        crop: Some(Crop { pad: 4, padding }),
        flip: true,
    };
    let random = Stream::new(3).of(Purpose::Augmentation);
    let ids: Vec<u64> = (0..20).rev().collect();
    let rows: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
    let draws: Vec<[u32; 3]> = ids
        .iter()
        .map(|&id| {
            let draw = augment.draw(&random, id);
            [draw.top as u32, draw.left as u32, u32::from(draw.flip)]
        })
        .collect();
    let cut = Cut {
        image: [3, 32, 32],
        pad: 4,
        reflect: padding == Padding::Reflect,
        scale: 255,
    };
    let Some(found) = resident::crop_flip(&images, &rows, &draws, &cut)? else {
        return Ok(no_kernel());
    };
    let pixels: Vec<f32> = ids
        .iter()
        .flat_map(|&id| {
            bytes[id as usize * 3072..][..3072]
                .iter()
                .map(|&byte| f32::from(byte) / 255.0)
        })
        .collect();
    let mut expected = vec![0.0; pixels.len()];
    augment.apply_all(&random, &ids, [3, 32, 32], &pixels, &mut expected);
    let expected = Tensor::from_vec(expected, (20, 3, 32, 32), &Device::Cpu)?;
    Ok(Found::Deviation {
        is: differing(&found, &expected)?,
        allowed: 0.0,
    })
}

fn descent(context: &Context) -> Result<Found> {
    let on = |device: &Device| -> Result<Tensor> {
        let var = Var::from_tensor(&numbers(1, &[500]).to_device(device)?)?;
        let parameters = [Parameter {
            name: "w".into(),
            var: var.clone(),
            role: Role::Weight,
        }];
        let sgd = Optimizer::Sgd {
            rate: 0.1,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 0.01,
            decay: Decay::All,
        };
        let mut descent = sgd.over(&parameters);
        for rate in [0.1, 0.1, 0.05] {
            descent.step(&var.sqr()?.sum_all()?.backward()?, rate)?;
        }
        Ok(var.as_tensor().copy()?)
    };
    Ok(Found::Deviation {
        is: deviation(&on(&context.device)?, &on(&Device::Cpu)?)?,
        allowed: 1e-6,
    })
}

fn double_precision(context: &Context) -> Result<Found> {
    if context.device.is_cpu() {
        return Ok(no_kernel());
    }
    let images = Tensor::zeros((1, 1, 4, 4), candle_core::DType::F64, &context.device)?;
    let message = kernels::relu(&images)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    ensure!(message.contains("f32"), "`{message}`");
    Ok(Found::Deviation { is: 0.0, allowed: 0.0 })
}
