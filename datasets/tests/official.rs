//! What is known about the real files, for those who have them:
//! `RAMPART_DATA_DIR=… cargo test -p datasets --test official -- --ignored`.

use datasets::{Dataset, Verify, entry, load, root};

/// Mean of each channel of the training images, as published, and the number of images per class.
#[track_caller]
fn check(name: &str, mean: &[f64]) {
    let root = root(None).unwrap();
    let data = load(name, &root, Verify::No).unwrap();
    let entry = entry(name).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (entry.train, entry.test));
    assert_eq!(data.verified, load(name, &root, Verify::Yes).is_ok());
    for (channel, expected) in mean.iter().enumerate() {
        let found = channel_mean(&data, channel);
        // Published to four digits; unverified CIFAR-10 may differ in a few images.
        assert!((found - expected).abs() < 1e-4, "channel {channel}: {found}");
    }
    let mut counts = vec![0; data.classes.len()];
    for &label in data.train.labels() {
        counts[label as usize] += 1;
    }
    if name != "mnist" {
        assert!(
            counts.iter().all(|&count| count == entry.train / data.classes.len()),
            "{counts:?}"
        );
    }
}

fn channel_mean(data: &Dataset, channel: usize) -> f64 {
    let [_, height, width] = data.image;
    let len = height * width;
    let sum: f64 = (0..data.train.len())
        .flat_map(|index| data.train.pixels(index).skip(channel * len).take(len))
        .map(f64::from)
        .sum();
    sum / (data.train.len() * len) as f64
}

#[test]
#[ignore = "needs the files of mnist in RAMPART_DATA_DIR"]
fn mnist() {
    check("mnist", &[0.1307]);
}

#[test]
#[ignore = "needs the files of fashion-mnist in RAMPART_DATA_DIR"]
fn fashion_mnist() {
    check("fashion-mnist", &[0.2860]);
}

#[test]
#[ignore = "needs the files of cifar10 in RAMPART_DATA_DIR"]
fn cifar10() {
    check("cifar10", &[0.4914, 0.4822, 0.4465]);
}

#[test]
#[ignore = "needs the files of cifar100 in RAMPART_DATA_DIR"]
fn cifar100() {
    check("cifar100", &[0.5071, 0.4865, 0.4409]);
}

#[test]
#[ignore = "needs the files of mnist in RAMPART_DATA_DIR"]
fn mnist_is_not_taken_for_fashion_mnist() {
    let folder = root(None).unwrap().join("mnist");
    let error = load("fashion-mnist", &folder, Verify::No).unwrap_err().to_string();
    assert!(error.contains("it is the file of mnist"), "{error}");
}
