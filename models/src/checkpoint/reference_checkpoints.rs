//! Every recorded file: the good ones give the recorded parameters and logits, the faulty ones an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use random::Stream;
use reference::{Case, assert_close_to_largest};

use super::{Checkpoint, Format};
use crate::builder::Builder;
use crate::network::{ModelError, Network};
use crate::resnet18::ResNet18;
use crate::{Classifier, Mode};

#[test]
fn reference_checkpoints() {
    reference::run("checkpoints", &[], |case| {
        if case.kind() != "checkpoint" {
            return false;
        }
        let (mut good, mut faulty) = (0, 0);
        for entry in std::fs::read_dir(case.path.parent().unwrap()).unwrap() {
            let file = entry.unwrap().path();
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            match file
                .extension()
                .is_some_and(|extension| extension == "pt" || extension == "pth")
            {
                true if name.starts_with("bad_") => {
                    check_faulty(case, &file);
                    faulty += 1;
                }
                true => {
                    check_good(case, &file);
                    good += 1;
                }
                false => {}
            }
        }
        assert!(good >= 9 && faulty >= 7, "{good} good and {faulty} faulty files");
        // Straight to the handle, as `reference::run` does.
        writeln!(
            std::io::stdout(),
            "reference checkpoints: {good} good and {faulty} faulty files are what they should be"
        )
        .unwrap();
        true
    });
}

fn network(case: &Case) -> Network {
    let widths: Vec<usize> = serde_json::from_value(case.meta["hyper"]["widths"].clone()).unwrap();
    let image = case.raw("x").dims()[1..].try_into().unwrap();
    let classes = case.hyper("K") as usize;
    let mut make = Builder::new(&Stream::new(0), DType::F32, &Device::Cpu);
    let body = ResNet18::of_widths(&mut make, widths.try_into().unwrap(), image, classes).unwrap();
    let place = (DType::F32, Device::Cpu);
    Network::new("resnet18", 1, image, classes, place, make, Arc::new(body))
}

/// The recorded parameters, in half precision if the file keeps them so.
fn expected(case: &Case, dtype: DType) -> BTreeMap<String, Tensor> {
    let entries = case.tensors().iter().filter_map(|(name, tensor)| {
        let name = name.strip_prefix("param/")?;
        let tensor = match tensor.dtype() {
            DType::F32 => tensor.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap(),
            _ => tensor.clone(),
        };
        Some((name.to_string(), tensor))
    });
    entries.collect()
}

fn logits(network: &Network, case: &Case) -> Tensor {
    network.logits(&case.input("x", DType::F32), Mode::Eval).unwrap()
}

#[track_caller]
fn check_good(case: &Case, file: &Path) {
    let shown = file.display();
    let checkpoint = Checkpoint::read(file).unwrap_or_else(|error| panic!("{error}"));
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(checkpoint.format == Format::Zip, bytes.starts_with(b"PK"), "{shown}");
    let name = file.file_stem().unwrap().to_string_lossy();
    assert_eq!(!checkpoint.within.is_empty(), name.starts_with("wrapped"), "{shown}");
    assert_eq!(
        checkpoint.prefix == "module.",
        name.contains("module_prefix"),
        "{shown}"
    );

    let half = name.contains("half");
    let expected = expected(case, if half { DType::F16 } else { DType::F32 });
    for (name, tensor) in &expected {
        let found = checkpoint
            .tensors
            .get(name)
            .unwrap_or_else(|| panic!("{shown}: no {name}"));
        assert_eq!(found.dims(), tensor.dims(), "{shown}: {name}");
        let numbers = |tensor: &Tensor| reference::doubles(tensor);
        assert_eq!(numbers(found), numbers(tensor), "{shown}: {name}");
    }
    let unknown: Vec<String> = checkpoint
        .tensors
        .keys()
        .filter(|name| !expected.contains_key(*name))
        .cloned()
        .collect();
    let loaded = network(case);
    if !unknown.is_empty() {
        let before = logits(&loaded, case);
        let message = checkpoint.load_into(&loaded, &[]).unwrap_err().to_string();
        assert!(
            unknown.iter().all(|name| message.contains(&format!("`{name}`"))),
            "{shown}: {message}"
        );
        assert_eq!(
            logits(&loaded, case).to_vec2::<f32>().unwrap(),
            before.to_vec2::<f32>().unwrap(),
            "{shown}: half loaded"
        );
    }
    checkpoint
        .load_into(&loaded, &unknown)
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let logits = logits(&loaded, case);
    match half {
        false => assert_close_to_largest(&format!("{shown}: logits"), &logits, &case.result("logits"), 1e-6),
        true => {
            let rounded = network(case);
            rounded.load_state(&expected).unwrap();
            assert_close_to_largest(
                &format!("{shown}: logits"),
                &logits,
                &self::logits(&rounded, case),
                1e-6,
            );
            // Eleven bits of each of twenty layers' weights.
            assert_close_to_largest(&format!("{shown}: logits"), &logits, &case.result("logits"), 1e-2);
        }
    }
}

/// Reading it, or putting it into the network it claims to be, is an error that says what is wrong.
#[track_caller]
fn check_faulty(case: &Case, file: &Path) {
    let shown = file.display();
    let message = match Checkpoint::read(file) {
        Err(error) => error.to_string(),
        Ok(checkpoint) => match checkpoint.load_into(&network(case), &[]) {
            Err(error @ ModelError::State { .. }) => error.to_string(),
            other => panic!("{shown}: {other:?}"),
        },
    };
    let parts: &[&str] = match &*file.file_stem().unwrap().to_string_lossy() {
        "bad_empty" => &["is empty"],
        "bad_garbage" => &["neither safetensors nor written by `torch.save`"],
        "bad_truncated" => &["truncated"],
        "bad_flipped_bytes" => &["check sum", "/data/"],
        "bad_missing_key" => &["`layer", "is missing"],
        "bad_shape" => &["` is [", "instead of ["],
        "bad_nan" => &["holds NaN"],
        _ => &[],
    };
    for part in parts {
        assert!(message.contains(part), "{shown}: `{part}` is not in: {message}");
    }
}
