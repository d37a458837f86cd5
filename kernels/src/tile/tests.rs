//! Every size of tile against plain loops.

use super::kernel::HEIGHTS;
use super::*;

/// Small integers, whose products are exact in any order.
fn numbers<T: From<i8>>(count: usize, seed: usize) -> Vec<T> {
    let number = |i: usize| (((i + seed) * 7 + (i + seed) / 5) % 11) as i8 - 5;
    (0..count).map(|i| number(i).into()).collect()
}

/// Every size of tile against plain loops.
fn check<T: From<i8> + Copy + PartialEq + std::fmt::Debug + Default + Into<f64>>(kernel: Kernel<T>) {
    let sum = |terms: &mut dyn Iterator<Item = (T, T)>| -> f64 {
        terms.map(|(a, b): (T, T)| -> f64 { a.into() * b.into() }).sum()
    };
    for height in HEIGHTS.into_iter().filter(|&height| height <= kernel.rows) {
        for columns in [kernel.lanes, kernel.columns()] {
            for (taps, run) in [(vec![3], 1), (vec![0, 40, 7], 17), (vec![5, 2], 9)] {
                let left: Vec<T> = numbers(height * 61 + 100, 0);
                let panel: Vec<T> = numbers(taps.len() * run * columns, 3);
                let starts: Vec<usize> = (0..height).map(|i| (i * 61) % (height * 53 + 1)).collect();
                let rows = Rows {
                    values: &left,
                    starts: &starts,
                    taps: &taps,
                    run,
                };
                let mut tile = [T::default(); LARGEST];
                (kernel.dots)(&rows, &panel, columns, Store::Replace, &mut tile);
                let once = tile;
                (kernel.dots)(&rows, &panel, columns, Store::Add, &mut tile);
                for i in 0..height {
                    for j in 0..columns {
                        let depth = (0..taps.len()).flat_map(|t| (0..run).map(move |k| (t, k)));
                        let mut terms =
                            depth.map(|(t, k)| (left[starts[i] + taps[t] + k], panel[(t * run + k) * columns + j]));
                        let expected = sum(&mut terms);
                        assert_eq!(once[i * columns + j].into(), expected, "{height}x{columns}");
                        assert_eq!(tile[i * columns + j].into(), 2.0 * expected, "{height}x{columns} added");
                    }
                }
            }
            let (left, right): (Vec<T>, Vec<T>) = (numbers(400, 1), numbers(900, 2));
            let operands = Columns {
                left: &left,
                right: &right,
                starts: &[(0, 4), (17, 0), (2, 90)],
                count: 9,
                left_step: 13,
                right_step: 35,
            };
            let mut tile = [T::default(); LARGEST];
            (kernel.outer)(&operands, height, columns, &mut tile);
            for i in 0..height {
                for j in 0..columns {
                    let depth = operands
                        .starts
                        .iter()
                        .flat_map(|&starts| (0..9).map(move |p| (starts, p)));
                    let mut terms = depth.map(|((a, b), p)| (left[a + p * 13 + i], right[b + p * 35 + j]));
                    assert_eq!(
                        tile[i * columns + j].into(),
                        sum(&mut terms),
                        "outer {height}x{columns}"
                    );
                }
            }
        }
    }
    for run in [1, 5, 16, 67, 130] {
        let (values, weights): (Vec<T>, Vec<T>) = (numbers(400, 4), numbers(2 * run, 5));
        let taps = [3, 150];
        let mut terms = (0..2).flat_map(|t| (0..run).map(move |k| (t, k)));
        let mut terms = terms.by_ref().map(|(t, k)| (values[taps[t] + k], weights[t * run + k]));
        let dot = (kernel.dot)(&values, &taps, run, &weights);
        assert_eq!(dot.into(), sum(&mut terms), "dot of {run}");
    }
}

#[test]
fn every_tile_multiplies() {
    check(single());
    check(double());
    check(portable::SINGLE);
    check(portable::DOUBLE);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        check(x86::AVX2);
    }
}

#[test]
fn rows_are_cut_into_heights_there_are() {
    for rows in 0..40 {
        for kernel in [single(), portable::SINGLE] {
            let mut next = 0;
            for range in kernel.cut(rows) {
                assert_eq!(range.start, next);
                assert!(range.len() <= kernel.rows && HEIGHTS.contains(&range.len()));
                next = range.end;
            }
            assert_eq!(next, rows);
        }
    }
}
