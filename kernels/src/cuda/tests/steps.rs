//! An attack's step, an optimizer's, draws and images.

use proptest::prelude::*;

use super::*;
use crate::cuda::machine::{Cut, SgdStep};
use crate::descent;

#[test]
fn draws_are_the_cpus_bits() {
    let gpu = emulator!();
    let ids = [0u64, 7, u64::MAX, 1 << 40];
    for (key, len) in [(3, 1), (u64::MAX - 5, 6), (1 << 50, 20_001)] {
        let stream = Stream::new(key);
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let (at, out) = (gpu.alloc(bytes.len()), gpu.room(ids.len() * len));
        gpu.write(at, &bytes);
        let shape = [ids.len() as u32, len as u32];
        machine::draws(&gpu, out, at, shape, key, false).unwrap();
        assert_same("uniform", &gpu.get(out, ids.len() * len), &stream.uniform(&ids, len));
        machine::draws(&gpu, out, at, shape, key, true).unwrap();
        assert_same("normal", &gpu.get(out, ids.len() * len), &stream.normal(&ids, len));
    }
}

#[test]
fn sign_steps_and_zero_gradients() {
    let gpu = emulator!();
    let n = 300usize;
    let (v, mut g) = (numbers(1, n), numbers(2, n));
    g[..100].fill(0.0);
    g[150] = -0.0;
    let centre = numbers(3, n);
    let (lower, upper): (Vec<f32>, Vec<f32>) = centre.iter().map(|c| (c - 0.5, c + 0.5)).unzip();
    let step = 8.0 / 255.0;
    let expected = {
        let [v, g, lower, upper] = [&v, &g, &lower, &upper].map(|values| tensor(values, &[n]));
        let moved = (v + (g.sign().unwrap() * f64::from(step)).unwrap()).unwrap();
        flat(&moved.maximum(&lower).unwrap().minimum(&upper).unwrap())
    };
    let at = [&v, &g, &lower, &upper].map(|values| gpu.floats(values));
    machine::sign_step(&gpu, at[0], at, step, n as u32).unwrap();
    assert_same("moved", &gpu.get(at[0], n), &expected);
    let flags = gpu.floats(&[0.0; 3]);
    machine::flag_zero(&gpu, flags, at[1], 3, 100).unwrap();
    assert_eq!(gpu.get(flags, 3), [1.0, 0.0, 0.0]);
}

#[test]
fn gradient_descent() {
    let gpu = emulator!();
    let n = 1000;
    let (start, gradient) = (numbers(1, n), numbers(2, n));
    for kind in descent::kinds() {
        let places = [gpu.floats(&start), gpu.room(n), gpu.floats(&gradient)];
        let (mut expected, mut memory) = (start.clone(), vec![0f32; n]);
        for first in [true, false, false] {
            let step = SgdStep { first, ..kind };
            machine::sgd_step(&gpu, places, &step, n as u32).unwrap();
            descent::plain(&mut expected, &mut memory, &gradient, &step);
        }
        assert_same("theta", &gpu.get(places[0], n), &expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn crops_and_flips(
        batch in 1usize..5,
        channels in 1usize..4,
        rows in 5usize..9,
        columns in 5usize..9,
        pad in 0usize..5,
        reflect: bool,
        seed in 0u64..1000,
    ) {
        let gpu = emulator!(Ok(()));
        let len = channels * rows * columns;
        let images: Vec<u8> = numbers(seed, 7 * len).iter().map(|x| (x * 100.0 + 100.0) as u8).collect();
        let random = Stream::new(seed);
        let which: Vec<u32> = (0..batch).map(|b| random.below(b as u64, 7) as u32).collect();
        let draws: Vec<[u32; 3]> = (0..batch as u64)
            .map(|b| {
                let draw = |k: u64, n: u64| random.at(k).below(b, n) as u32;
                [draw(1, 2 * pad as u64 + 1), draw(2, 2 * pad as u64 + 1), draw(3, 2)]
            })
            .collect();
        let cut = Cut { image: [channels, rows, columns], pad, reflect, scale: 255 };
        let at = gpu.alloc(images.len());
        gpu.write(at, &images);
        let out = gpu.room(batch * len);
        let operands = [at, gpu.words(&which), gpu.words(draws.as_flattened())];
        machine::crop_flip(&gpu, out, operands, batch as u32, &cut).unwrap();
        let found = gpu.get(out, batch * len);
        // Pixel by pixel in the padded image.
        let source = |at: usize, size: usize| -> Option<usize> {
            let at = at as isize - pad as isize;
            let size = size as isize;
            let mirrored = if at < 0 { -at } else if at >= size { 2 * (size - 1) - at } else { at };
            let at = if reflect { mirrored } else { at };
            (0..size).contains(&at).then_some(at as usize)
        };
        for b in 0..batch {
            let [top, left, flip] = draws[b].map(|draw| draw as usize);
            for (i, found) in found[b * len..][..len].iter().enumerate() {
                let (c, row, column) = (i / rows / columns, i / columns % rows, i % columns);
                let column = if flip == 1 { columns - 1 - column } else { column };
                let expected = match (source(row + top, rows), source(column + left, columns)) {
                    (Some(y), Some(x)) => f32::from(images[which[b] as usize * len + (c * rows + y) * columns + x]) / 255.0,
                    _ => 0.0,
                };
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }
}
