//! Element by element, and sums per channel.

use proptest::prelude::*;

use super::*;
use crate::Activation;

#[test]
fn bfloat16_rounds_to_the_nearest_even() {
    let gpu = emulator!();
    let values = [
        1.0,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0x3f80_8001),
        f32::MAX,
        -0.0,
        1e-40,
    ];
    let (x, half, back) = (gpu.floats(&values), gpu.alloc(2 * values.len()), gpu.room(values.len()));
    let n = values.len() as u32;
    machine::to_bf16(&gpu, half, x, n).unwrap();
    machine::to_f32(&gpu, back, half, n).unwrap();
    let expected: Vec<f32> = values
        .iter()
        .map(|&value| half::bf16::from_f32(value).to_f32())
        .collect();
    assert_same("rounded", &gpu.get(back, values.len()), &expected);
    let nan = gpu.floats(&[f32::NAN]);
    machine::to_bf16(&gpu, half, nan, 1).unwrap();
    machine::to_f32(&gpu, back, half, 1).unwrap();
    assert!(gpu.get(back, 1)[0].is_nan());
}

#[test]
fn channel_sums_of_many_slices() {
    let gpu = emulator!();
    let shape = [3, 2, 20_000];
    let extent = Extent::new(&shape).unwrap();
    let g = numbers(1, shape.iter().product());
    let expected: Vec<f32> = (0..2)
        .map(|c| {
            (0..g.len())
                .filter(|i| i / 20_000 % 2 == c)
                .map(|i| f64::from(g[i]))
                .sum::<f64>() as f32
        })
        .collect();
    for (form, slices) in SINGLE.into_iter().zip([4, 118]) {
        assert_eq!(extent.slices(form), slices);
        let (partial, sums) = (gpu.alloc(extent.partial_bytes(form)), gpu.room(2));
        machine::channel_sums(&gpu, form, sums, enter(&gpu, form, &g, extent), partial, extent).unwrap();
        assert_near("sums", &gpu.get(sums, 2), &expected, 1e-6);
    }
}

#[test]
fn factors() {
    let gpu = emulator!();
    let (x, f) = (numbers(1, 70), numbers(2, 70));
    let at = gpu.floats(&x);
    machine::times(&gpu, PLAIN, [at, at, gpu.floats(&f)], 70).unwrap();
    let expected: Vec<f32> = x.iter().zip(&f).map(|(x, f)| x * f).collect();
    assert_same("products", &gpu.get(at, 70), &expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn biases_sums_and_relu(
        batch in 1usize..5,
        channels in 1usize..7,
        area in 1usize..50,
        relu: bool,
        with_bias: bool,
        with_other: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let shape = [batch, channels, area, 1];
        let n = shape.iter().product();
        let (x, bias, other, g) = (numbers(seed, n), numbers(seed + 1, channels), numbers(seed + 2, n), numbers(seed + 3, n));
        let extent = Extent::new(&shape).unwrap();
        let mut expected = tensor(&x, &shape);
        if with_bias {
            expected = crate::add_bias(&expected, &tensor(&bias, &[channels]), Activation::None).unwrap();
        }
        if with_other {
            expected = (expected + tensor(&other, &shape)).unwrap();
        }
        if relu {
            expected = crate::relu(&expected).unwrap();
        }
        let at = [gpu.floats(&x), if with_bias { gpu.floats(&bias) } else { 0 }, if with_other { gpu.floats(&other) } else { 0 }];
        let out = gpu.room(n);
        machine::finish(&gpu, PLAIN, [out, 0], at, extent, relu).unwrap();
        assert_same("result", &gpu.get(out, n), &flat(&expected));

        let (gradient, to) = (gpu.floats(&g), gpu.room(n));
        machine::relu_gradient(&gpu, PLAIN, to, [out, gradient], n as u32).unwrap();
        let masked: Vec<f32> = flat(&expected).iter().zip(&g).map(|(&y, &g)| if y <= 0.0 { 0.0 } else { g }).collect();
        assert_same("masked", &gpu.get(to, n), &masked);

        let all: Vec<f32> = (0..channels)
            .map(|c| {
                let of = (0..n).filter(|i| i / area % channels == c);
                of.map(|i| f64::from(g[i])).sum::<f64>() as f32
            })
            .collect();
        for form in SINGLE {
            let (partial, sums) = (gpu.alloc(extent.partial_bytes(form)), gpu.room(channels));
            machine::channel_sums(&gpu, form, sums, enter(&gpu, form, &g, extent), partial, extent).unwrap();
            assert_near("sums", &gpu.get(sums, channels), &all, 1e-6);
        }
    }
}
