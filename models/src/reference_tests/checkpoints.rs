//! Every recorded file: the good ones give the recorded parameters and logits, the faulty ones an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use candle_core::{DType, Tensor};
use reference::{Case, NotBuilt, assert_close_to_largest};

use super::described;
use crate::{Checkpoint, Classifier, Format, Mode, ModelError, Network};

#[test]
fn reference_checkpoints() {
    reference::run("checkpoints", &[], |case| {
        if case.kind() != "checkpoint" {
            return Err(case.unknown_kind());
        }
        sizes(case)?;
        let (mut good, mut faulty) = (0, 0);
        for entry in std::fs::read_dir(case.path.parent().unwrap()).unwrap() {
            let file = entry.unwrap().path();
            if !is_pytorch(&file) {
                continue;
            }
            if file.file_stem().unwrap().to_string_lossy().starts_with("bad_") {
                check_faulty(case, &file);
                faulty += 1;
            } else {
                check_good(case, &file);
                good += 1;
            }
        }
        assert!(good > 0, "{}: no checkpoint beside it", case.path.display());
        let listed = listed();
        assert!(
            listed.is_none_or(|listed| listed <= good + faulty),
            "the index lists {listed:?} checkpoints, but {good} good and {faulty} faulty files were read"
        );
        // Straight to the handle, as `reference::run` does.
        writeln!(
            std::io::stdout(),
            "reference checkpoints: {good} good and {faulty} faulty files are what they should be"
        )
        .unwrap();
        Ok(())
    });
}

fn is_pytorch(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension == "pt" || extension == "pth")
}

/// How many checkpoints the index of the vectors lists, if it has one.
fn listed() -> Option<usize> {
    let text = std::fs::read_to_string(reference::root().join("INDEX.json")).ok()?;
    let index: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let files = index.keys().filter(|name| name.starts_with("checkpoints/"));
    Some(files.filter(|name| is_pytorch(Path::new(name))).count())
}

/// Widths and numbers of blocks of the four layers.
fn sizes(case: &Case) -> Result<[[usize; 4]; 2], NotBuilt> {
    let sizes = |name: &str| {
        let list = case.meta["hyper"][name].clone();
        serde_json::from_value(list.clone()).map_err(|_| NotBuilt(format!("a ResNet with {name} {list}")))
    };
    Ok([sizes("widths")?, sizes("blocks")?])
}

fn network(case: &Case) -> Network {
    let [widths, blocks] = sizes(case).unwrap();
    let image = case.raw("x").dims()[1..].try_into().unwrap();
    described::resnet_of(widths, blocks, image, case.hyper("K") as usize)
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
    let what = format!("{shown}: logits");
    if !half {
        assert_close_to_largest(&what, &logits, &case.result("logits"), 1e-6);
        return;
    }
    let rounded = network(case);
    rounded.load_state(&expected).unwrap();
    assert_close_to_largest(&what, &logits, &self::logits(&rounded, case), 1e-6);
    // Eleven bits of each of twenty layers' weights.
    assert_close_to_largest(&what, &logits, &case.result("logits"), 1e-2);
}

/// Reading it, or loading it into the network, is an error that says what is wrong.
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
