//! What every network promises besides the authors' numbers.

use candle_core::{DType, Device, Tensor, Var};
use models::{Classifier, Dropout, Mode, Network, Role};
use random::Stream;

/// Every network with the smallest images it is for.
const NETWORKS: [(&str, [usize; 3]); 7] = [
    ("tiny-cnn", [1, 8, 8]),
    ("small-cnn", [1, 28, 28]),
    ("lenet5", [1, 28, 28]),
    ("resnet18", [3, 32, 32]),
    ("wrn-10-2", [3, 32, 32]),
    ("wrn-16-1", [3, 32, 32]),
    ("mma-wrn-10-2", [3, 32, 32]),
];

fn build(name: &str, image: [usize; 3]) -> Network {
    models::build(name, image, 10, &Stream::new(5)).unwrap()
}

fn images(batch: usize, [c, h, w]: [usize; 3]) -> Tensor {
    let ids: Vec<u64> = (0..batch as u64).collect();
    let values = Stream::new(1).uniform(&ids, c * h * w);
    Tensor::from_vec(values, (batch, c, h, w), &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Moves everything off its initial value: SmallCNN starts with constant logits.
fn shake(network: &Network) {
    for (index, parameter) in network.parameters().iter().enumerate() {
        let draws = Stream::new(8).normal(&[index as u64], parameter.var.elem_count());
        let noise = Tensor::from_vec(draws, parameter.var.shape(), &Device::Cpu).unwrap();
        let moved = (parameter.var.as_tensor() + (noise * 0.05).unwrap()).unwrap();
        parameter.var.set(&moved).unwrap();
    }
    network.logits(&images(4, network.image()), Mode::Train(None)).unwrap();
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    for (name, image) in NETWORKS {
        let network = build(name, image);
        shake(&network);
        let images = images(3, image);
        let frozen = network.freeze().unwrap();
        let classifiers = [Some(&network as &dyn Classifier), frozen.as_deref()];
        for classifier in classifiers.into_iter().flatten() {
            let run = |images: &Tensor| {
                let x = Var::from_tensor(images).unwrap();
                let logits = classifier.logits(&x, Mode::Eval).unwrap();
                let gradient = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                (values(&logits), values(gradient.get(&x).unwrap()))
            };
            let (logits, gradient) = run(&images);
            for row in 0..3 {
                let (alone, gradient_alone) = run(&images.narrow(0, row, 1).unwrap());
                assert_eq!(alone, logits[row * 10..(row + 1) * 10], "{name}");
                let len = gradient_alone.len();
                assert_eq!(gradient_alone, gradient[row * len..(row + 1) * len], "{name}");
            }
        }
    }
}

#[test]
fn threads_do_not_matter() {
    for (name, image) in NETWORKS {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let network = build(name, image);
                let logits = network.logits(&images(5, image), Mode::Train(None)).unwrap();
                let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let of = |var: &Var| gradients.get(var).map(values);
                let parameters: Vec<_> = network.parameters().iter().map(|it| of(&it.var)).collect();
                let buffers: Vec<_> = network.buffers().iter().map(|it| values(it.var.as_tensor())).collect();
                (values(&logits), parameters, buffers)
            })
        };
        assert!(run(1) == run(2), "{name}");
    }
}

#[test]
fn a_frozen_network_is_the_same_function_without_parameter_gradients() {
    for (name, image) in NETWORKS {
        let network = build(name, image);
        shake(&network);
        let frozen = network.freeze().unwrap().expect("networks can be frozen");
        let x = Var::from_tensor(&images(3, image)).unwrap();
        let run = |classifier: &dyn Classifier| {
            let logits = classifier.logits(&x, Mode::Eval).unwrap();
            (
                logits.clone(),
                logits.sqr().unwrap().sum_all().unwrap().backward().unwrap(),
            )
        };
        let ((plain, plain_gradients), (cold, cold_gradients)) = (run(&network), run(frozen.as_ref()));
        for (what, plain, cold) in [
            ("logits", &plain, &cold),
            (
                "gradient",
                plain_gradients.get(&x).unwrap(),
                cold_gradients.get(&x).unwrap(),
            ),
        ] {
            reference::assert_close_to_largest(&format!("{name} {what}"), cold, plain, 1e-4);
        }
        for parameter in network.parameters() {
            assert!(
                cold_gradients.get(&parameter.var).is_none(),
                "{name} {}",
                parameter.name
            );
        }
    }
}

#[test]
fn training_as_one_operation_is_training_by_layers() {
    for (name, image) in NETWORKS {
        let network = build(name, image);
        shake(&network);
        let state = network.state().unwrap();
        let x = Var::from_tensor(&images(5, image)).unwrap();
        let random = Stream::new(2);
        let ids = [3, 1, 4, 15, 9];
        let dropout = Dropout {
            random: &random,
            ids: &ids,
        };
        for mode in [Mode::Train(None), Mode::Train(Some(dropout)), Mode::BatchStatistics] {
            let run = |pass: fn(&Network, &Tensor, Mode<'_>) -> candle_core::Result<Tensor>| {
                network.load_state(&state).unwrap();
                let logits = pass(&network, &x, mode).unwrap();
                let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                (logits, gradients, network.state().unwrap())
            };
            let (logits, gradients, after) = run(|network, x, mode| network.logits(x, mode));
            let (slow_logits, slow_gradients, slow_after) = run(Network::logits_by_layers);
            let what = |part: &str| format!("{name} {mode:?} {part}");
            reference::assert_close_to_largest(&what("logits"), &logits, &slow_logits, 1e-5);
            // Where a ReLU's input is zero but for rounding, it is on in one and off in the other: seen up to
            // 2e-3 of a gradient. A wrong formula is off by more than a tenth.
            let distance = |a: &Tensor, b: &Tensor| {
                let (a, b) = (values(a), values(b));
                let squares = |it: &mut dyn Iterator<Item = f64>| it.map(|v| v * v).sum::<f64>().sqrt();
                let difference = squares(&mut a.iter().zip(&b).map(|(a, b)| f64::from(a - b)));
                difference / squares(&mut b.iter().map(|&b| f64::from(b))).max(1e-20)
            };
            let pairs = network.parameters().iter().map(|it| (it.name.as_str(), &it.var));
            for (parameter, var) in pairs.chain([("images", &x)]) {
                match (gradients.get(var), slow_gradients.get(var)) {
                    (Some(ours), Some(slow)) => {
                        let distance = distance(ours, slow);
                        assert!(distance < 1e-2, "{}: {distance}", what(parameter));
                    }
                    (None, None) => assert!(parameter.contains("sub_block1"), "{}", what(parameter)),
                    (ours, slow) => panic!("{}: {} {}", what(parameter), ours.is_some(), slow.is_some()),
                }
            }
            for (entry, tensor) in &after {
                let slow = &slow_after[entry];
                reference::assert_close_to_largest(&what(entry), tensor, slow, 1e-5);
            }
        }
    }
}

#[test]
fn the_gradient_of_a_training_pass_can_be_asked_for_once() {
    let network = build("tiny-cnn", [1, 8, 8]);
    let loss = network
        .logits(&images(2, [1, 8, 8]), Mode::Train(None))
        .unwrap()
        .sum_all()
        .unwrap();
    loss.backward().unwrap();
    let message = loss.backward().unwrap_err().to_string();
    assert!(message.contains("once"), "{message}");
}

#[test]
fn state_goes_out_and_in() {
    for (name, image) in NETWORKS {
        let (network, other) = (
            build(name, image),
            models::build(name, image, 10, &Stream::new(6)).unwrap(),
        );
        shake(&network);
        other.load_state(&network.state().unwrap()).unwrap();
        let images = images(2, image);
        let logits = |network: &Network| values(&network.logits(&images, Mode::Eval).unwrap());
        assert_eq!(logits(&network), logits(&other), "{name}");
        let (ours, theirs) = (network.state().unwrap(), other.state().unwrap());
        for (name, tensor) in &ours {
            let doubles = [tensor, &theirs[name]].map(reference::doubles);
            assert_eq!(doubles[0], doubles[1], "{name}");
        }
    }
}

#[test]
fn state_of_another_network_is_refused_whole() {
    let network = build("tiny-cnn", [1, 8, 8]);
    let mut state = network.state().unwrap();
    let before = values(network.parameters()[0].var.as_tensor());
    state.insert(
        "conv1.weight".into(),
        Tensor::ones((16, 1, 3, 3), DType::F32, &Device::Cpu).unwrap(),
    );
    state.insert(
        "fc.weight".into(),
        Tensor::zeros((10, 7), DType::F32, &Device::Cpu).unwrap(),
    );
    state.insert("extra".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    state.remove("bn1.bias");
    let message = network.load_state(&state).unwrap_err().to_string();
    for part in [
        "`tiny-cnn`",
        "`fc.weight` is [10, 7] instead of [10, 512]",
        "`extra` [3]",
        "`bn1.bias` [16] is missing",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(before, values(network.parameters()[0].var.as_tensor()));
}

#[test]
fn initial_parameters_depend_on_the_seed_and_follow_the_authors() {
    let first = |seed| {
        let network = models::build("resnet18", [3, 32, 32], 10, &Stream::new(seed)).unwrap();
        values(network.parameters()[0].var.as_tensor())
    };
    assert_eq!(first(1), first(1));
    assert_ne!(first(1), first(2));
    // Uniform on ±1/√27.
    let bound = 1.0 / 27f32.sqrt();
    assert!(first(1).iter().all(|w| w.abs() <= bound) && first(1).iter().any(|w| w.abs() > 0.99 * bound));

    let wide = build("wrn-10-2", [3, 32, 32]);
    let weights = wide
        .parameters()
        .iter()
        .find(|it| it.name == "block3.layer.0.conv2.weight")
        .unwrap();
    let weights = values(weights.var.as_tensor());
    let variance = weights.iter().map(|w| f64::from(w * w)).sum::<f64>() / weights.len() as f64;
    let expected = 2.0 / (9.0 * 128.0);
    // 147,456 draws: the standard error of the variance is 0.4 % of it.
    assert!((variance / expected - 1.0).abs() < 0.02, "{variance} {expected}");

    let small = build("small-cnn", [1, 28, 28]);
    for parameter in small.parameters() {
        let zero = values(parameter.var.as_tensor()).iter().all(|w| *w == 0.0);
        let expected = parameter.name.starts_with("classifier.fc3") || parameter.name.ends_with("conv1.bias");
        assert!(zero || !expected, "{}", parameter.name);
    }
}

#[test]
fn sizes_are_the_published_ones() {
    for (name, image, parameters, multiplications) in [
        ("small-cnn", [1, 28, 28], 312_202, 5_000_000..13_000_000),
        ("lenet5", [1, 28, 28], 3_274_634, 13_000_000..15_000_000),
        ("resnet18", [3, 32, 32], 11_173_962, 550_000_000..560_000_000),
        ("wrn-10-2", [3, 32, 32], 318_138, 30_000_000..80_000_000),
        ("mma-wrn-28-4", [3, 32, 32], 5_849_050, 800_000_000..900_000_000),
    ] {
        let network = build(name, image);
        assert_eq!(network.parameter_count(), parameters, "{name}");
        let count = network.multiplications().unwrap();
        assert!(multiplications.contains(&count), "{name}: {count}");
    }
}

#[test]
fn roles_follow_the_names() {
    let network = build("resnet18", [3, 32, 32]);
    for parameter in network.parameters() {
        let expected = match parameter.name.as_str() {
            name if name.contains("bn") || name.contains("shortcut.1") => Role::BatchNorm,
            name if name.ends_with("bias") => Role::Bias,
            _ => Role::Weight,
        };
        assert_eq!(parameter.role, expected, "{}", parameter.name);
    }
}

#[test]
fn dropout_depends_on_the_example_alone() {
    let network = build("small-cnn", [1, 28, 28]);
    shake(&network);
    let random = Stream::new(3);
    let run = |rows: &[u64]| {
        let pictures = images(4, [1, 28, 28]);
        let index = Tensor::new(rows.iter().map(|&row| row as u32).collect::<Vec<_>>(), &Device::Cpu).unwrap();
        let dropout = Dropout {
            random: &random,
            ids: rows,
        };
        let mode = Mode::Train(Some(dropout));
        let logits = network
            .logits(&pictures.index_select(&index, 0).unwrap(), mode)
            .unwrap();
        logits.to_vec2::<f32>().unwrap()
    };
    let all = run(&[0, 1, 2, 3]);
    assert_eq!(run(&[2])[0], all[2]);
    assert_eq!(run(&[3, 1]), [all[3].clone(), all[1].clone()]);
    let without = network.logits(&images(4, [1, 28, 28]), Mode::Train(None)).unwrap();
    assert_ne!(without.to_vec2::<f32>().unwrap(), all);
}

#[test]
fn statistics_change_in_training_only() {
    let network = build("tiny-cnn", [1, 8, 8]);
    let state = || -> Vec<Vec<f64>> { network.state().unwrap().values().map(reference::doubles).collect() };
    let before = state();
    let images = images(3, [1, 8, 8]);
    let eval = values(&network.logits(&images, Mode::Eval).unwrap());
    let batch = values(&network.logits(&images, Mode::BatchStatistics).unwrap());
    assert_ne!(eval, batch);
    assert_eq!(before, state());
    let train = values(&network.logits(&images, Mode::Train(None)).unwrap());
    assert_eq!(train, batch);
    assert_ne!(before, state());
    assert_eq!(
        network.state().unwrap()["bn1.num_batches_tracked"]
            .to_scalar::<i64>()
            .unwrap(),
        1
    );
}

#[test]
fn wrong_names_and_images_are_refused() {
    let refuse =
        |name: &str, image: [usize; 3]| models::build(name, image, 10, &Stream::new(0)).unwrap_err().to_string();
    assert!(refuse("resnet-18", [3, 32, 32]).contains("did you mean `resnet18`"));
    assert!(refuse("wrn-34", [3, 32, 32]).contains("did you mean `wrn-34-10`"));
    assert!(!refuse("vgg", [3, 32, 32]).contains("did you mean"));
    assert!(refuse("wrn-33-10", [3, 32, 32]).contains("6n + 4"));
    assert!(refuse("small-cnn", [1, 8, 8]).contains("at least 16"));
    assert!(refuse("tiny-cnn", [0, 8, 8]).contains("[0, 8, 8]"));
    let network = build("tiny-cnn", [1, 8, 8]);
    let message = network
        .logits(&images(2, [1, 9, 8]), Mode::Eval)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("[B, 1, 8, 8]") && message.contains("[2, 1, 9, 8]"),
        "{message}"
    );
}
