use super::*;
use crate::fixtures::{setting, waves};
use crate::{Family, Pixels};
use reference::doubles;
use testing::{assert_near, tensor};

#[test]
fn an_l2_move_worked_by_hand() {
    // The window fills the image, so nothing of the old length is lost: the change keeps to the radius, and each
    // channel keeps its own length.
    let images = tensor(&[0.5; 18], &[1, 2, 3, 3]);
    let labels = Tensor::new(&[0u32], images.device()).unwrap();
    let batch = Batch {
        images: images.clone(),
        labels,
        ids: vec![5],
    };
    let threat = Threat {
        norm: Norm::L2,
        epsilon: Pixels::new(1, 10),
    };
    let change: Vec<f64> = (0..18)
        .map(|i| {
            if i == 4 {
                0.06
            } else if i == 13 {
                0.08
            } else {
                0.0
            }
        })
        .collect();
    let search = Search {
        rows: vec![0],
        ball: Ball::new(&threat, &images).unwrap(),
        best: (&images + tensor(&change, &[1, 2, 3, 3])).unwrap(),
        batch,
        threat,
        margins: vec![1.0],
        wrong: vec![false],
    };
    let draws = Fixed(vec![0.0, 0.0, 0.0, 0.0, 0.1, 0.9, 0.1]);
    let moved = doubles(&(search.windows(0.8, 0, &draws).unwrap() - &images).unwrap());
    let mut direction: Vec<f64> = hills(3, false);
    direction[4] += 1.0;
    let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
    for (i, value) in direction.iter().enumerate() {
        assert!((moved[i] - 0.06 * value / length).abs() < 1e-9, "{i}: {moved:?}");
    }
    let other: f64 = moved[9..].iter().map(|value| value * value).sum();
    assert!((other.sqrt() - 0.08).abs() < 1e-9, "{moved:?}");
}

/// The same draws for every request.
struct Fixed(Vec<f32>);

impl Draws for Fixed {
    fn uniform(&self, _: u64, _: &[u64], len: usize) -> Vec<f32> {
        assert_eq!(self.0.len(), len);
        self.0.clone()
    }

    fn normal(&self, _: u64, _: &[u64], _: usize) -> Vec<f32> {
        unreachable!("square draws nothing normal")
    }
}

#[test]
fn starts_lie_on_the_sphere() {
    let mut batch = waves(3, [3, 12, 9], 3);
    batch.images = ((batch.images * 0.2).unwrap() + 0.4).unwrap();
    for norm in [Norm::Linf, Norm::L2] {
        let threat = Threat {
            norm,
            epsilon: Pixels::new(1, 10),
        };
        let ball = Ball::new(&threat, &batch.images).unwrap();
        let start = match norm {
            Norm::Linf => stripes(&ball, &batch, &Stream::new(4)).unwrap(),
            Norm::L2 => chessboard(&ball, &batch, &Stream::new(4)).unwrap(),
        };
        let distances = threat.distances(&batch.images, &start).unwrap();
        assert_near("distance", &distances, &tensor(&[0.1; 3], &[3]), 1e-9);
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    let setting = setting(Family::Cifar, Norm::Linf);
    let refuse = |square: Square, field: &str| {
        assert_eq!(square.clone().resolve(&setting).unwrap_err().field, field, "{square:?}");
    };
    refuse(
        Square {
            queries: 0,
            ..Square::default()
        },
        "queries",
    );
    refuse(
        Square {
            restarts: 0,
            ..Square::default()
        },
        "restarts",
    );
    refuse(
        Square {
            p_init: 0.0,
            ..Square::default()
        },
        "p_init",
    );
    refuse(
        Square {
            p_init: f64::NAN,
            ..Square::default()
        },
        "p_init",
    );
}
