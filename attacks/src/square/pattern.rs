//! Where [`crate::Square`] changes an image, and under L2 in what direction.

/// Keeps quotients of norms finite.
const TINY: f64 = 1e-12;

/// A square part of an image.
pub(crate) struct Window {
    top: usize,
    left: usize,
    side: usize,
}

impl Window {
    pub(crate) fn at(vertical: f32, horizontal: f32, side: usize, height: usize, width: usize) -> Self {
        let place = |draw: f32, free: usize| ((free as f32 * draw) as usize).min(free);
        Self {
            top: place(vertical, height - side),
            left: place(horizontal, width - side),
            side,
        }
    }

    /// Calls `visit(index in the plane, row and column in the window)`.
    pub(crate) fn each(&self, width: usize, mut visit: impl FnMut(usize, usize, usize)) {
        for y in 0..self.side {
            for x in 0..self.side {
                visit((self.top + y) * width + self.left + x, y, x);
            }
        }
    }
}

/// A pattern of length 1 on a square: a hill on one half, a valley on the other. `upright`: side by side, else one
/// above the other.
pub(crate) fn hills(side: usize, upright: bool) -> Vec<f64> {
    let upper = side / 2;
    let mut values = hill(upper, side);
    values.extend(hill(side - upper, side).into_iter().map(|value| -value));
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let at = |y: usize, x: usize| {
        let (y, x) = if upright { (x, y) } else { (y, x) };
        values[y * side + x] / length.max(TINY)
    };
    (0..side)
        .flat_map(|y| (0..side).map(move |x| (y, x)))
        .map(|(y, x)| at(y, x))
        .collect()
}

/// Rectangles laid on top of each other around the middle, each a pixel wider on all sides than the last and 1/n² high.
/// Length 1.
fn hill(height: usize, width: usize) -> Vec<f64> {
    let mut values = vec![0.0; height * width];
    let (middle, centre) = ((height / 2) as isize, (width / 2) as isize);
    for n in 0..(height / 2 + 1).max(width / 2 + 1) as isize {
        let added = 1.0 / ((n + 1) * (n + 1)) as f64;
        for y in (middle - n).max(0)..(middle + n + 1).min(height as isize) {
            for x in (centre - n).max(0)..(centre + n + 1).min(width as isize) {
                values[y as usize * width + x as usize] += added;
            }
        }
    }
    let length = values.iter().map(|value| value * value).sum::<f64>().sqrt();
    values.into_iter().map(|value| value / length.max(TINY)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_worked_by_hand() {
        // 1 in the middle row and column on top of ¼ everywhere: heights 1¼ and ¼.
        let peak = hill(3, 3);
        let expected = [0.25, 0.25, 0.25, 0.25, 1.25, 0.25, 0.25, 0.25, 0.25];
        let length = (8.0f64 / 16.0 + 25.0 / 16.0).sqrt();
        for (value, expected) in peak.iter().zip(expected) {
            assert!((value - expected / length).abs() < 1e-12, "{peak:?}");
        }
        let pattern = hills(3, false);
        assert!(pattern[..3].iter().all(|&value| value > 0.0) && pattern[3..].iter().all(|&value| value < 0.0));
        assert!((pattern.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-12);
        let transposed = hills(3, true);
        assert!((0..9).all(|i| transposed[i] == pattern[i % 3 * 3 + i / 3]));
    }
}
