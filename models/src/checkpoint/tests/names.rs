//! Names: which dictionary of a file is the network's, what precedes its names, and what does not fit.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use random::Stream;

use super::{PICKLE, file, refused};
use crate::Network;
use crate::checkpoint::{Checkpoint, Format};

#[test]
fn nests_are_found_and_ambiguity_is_refused() {
    // {KEY: {'w': …}}
    let under = |keys: &[&str], value: &[u8]| {
        let mut pickle = b"\x80\x02".to_vec();
        for key in keys {
            pickle.extend(b"}X");
            pickle.extend((key.len() as u32).to_le_bytes());
            pickle.extend(key.as_bytes());
        }
        pickle.extend(value);
        pickle.extend(vec![b's'; keys.len()]);
        pickle.push(b'.');
        pickle
    };
    let inner = &PICKLE[2..PICKLE.len() - 1];
    for keys in [
        &["net"][..],
        &["model"],
        &["state_dict"],
        &["model", "state_dict"],
        &["model_state_dict"],
    ] {
        let checkpoint = Checkpoint::parse(&file(&under(keys, inner))).unwrap();
        assert_eq!(checkpoint.within, keys);
        assert!(checkpoint.tensors.contains_key("w"));
    }
    // The only dictionary with tensors, whatever its key.
    for keys in [&["weights"][..], &["checkpoint", "ema"]] {
        assert_eq!(Checkpoint::parse(&file(&under(keys, inner))).unwrap().within, keys);
    }
    refused(
        &file(b"\x80\x02}X\x05\x00\x00\x00epochK\x01s."),
        "holds no dictionary of tensors (`epoch`)",
    );
    let two = [
        under(&["net"], inner).strip_suffix(b".").unwrap(),
        b"X\x05\x00\x00\x00model",
        inner,
        b"s.",
    ]
    .concat();
    refused(&file(&two), "`net` and `model`");
    let twice = [PICKLE.strip_suffix(b".").unwrap(), b"X\x01\x00\x00\x00wNs."].concat();
    refused(&file(&twice), "the key `w` twice");
}

#[test]
fn safetensors_read_in_every_precision() {
    let values = Tensor::new(&[[0.5f32, -1.0], [2.0, 0.25]], &Device::Cpu).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.safetensors");
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let tensors = std::collections::HashMap::from([("module.w", values.to_dtype(dtype).unwrap())]);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let checkpoint = Checkpoint::read(&path).unwrap();
        assert_eq!(
            (checkpoint.format, &*checkpoint.prefix),
            (Format::Safetensors, "module.")
        );
        assert_eq!(reference::doubles(&checkpoint.tensors["w"]), [0.5, -1.0, 2.0, 0.25]);
    }
    let bytes = std::fs::read(&path).unwrap();
    for length in 0..bytes.len() {
        assert!(
            Checkpoint::parse(&bytes[..length]).is_err(),
            "{length} of {} bytes",
            bytes.len()
        );
    }
    assert!(
        Checkpoint::read(folder.path())
            .unwrap_err()
            .to_string()
            .contains("not a file")
    );
}

/// `network` under these keys and prefixes, each a dictionary of one file, as safetensors where the keys are empty.
fn named(network: &Network, prefixes: &[&str], more: &[&str]) -> Vec<u8> {
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for prefix in prefixes {
        for (name, tensor) in network.state().unwrap() {
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }
    for name in more {
        tensors.insert((*name).to_string(), Tensor::new(1i64, &Device::Cpu).unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it");
    let tensors: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn a_prefix_is_what_precedes_the_networks_names() {
    let small = crate::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(7)).unwrap();
    let load = |bytes: &[u8], ignore: &[&str]| {
        let checkpoint = Checkpoint::parse_for(bytes, &small, None).unwrap();
        let ignore: Vec<String> = ignore.iter().map(ToString::to_string).collect();
        (
            checkpoint.prefix.clone(),
            checkpoint.load_into(&small, &ignore).map_err(|error| error.to_string()),
        )
    };
    // The count of an averaged model needs no option, and does not mind one.
    for (prefix, count) in [
        ("module.", "n_averaged"),
        ("module.module.", "module.n_averaged"),
        ("", "n_averaged"),
    ] {
        let bytes = named(&small, &[prefix], &[count]);
        let (found, loaded) = load(&bytes, &[]);
        assert_eq!(
            (&*found, &loaded.unwrap().counts[..]),
            (prefix, &[count.to_string()][..])
        );
        load(&bytes, &[count]).1.unwrap();
    }
    // Another entry has to be ignored, by its name in the file or without the prefix.
    let bytes = named(&small, &["module."], &["mu", "module.sigma"]);
    let (prefix, loaded) = load(&bytes, &[]);
    let message = loaded.unwrap_err();
    assert_eq!(prefix, "module.");
    assert!(
        message.contains("`mu` [] is not expected") && message.contains("`sigma` [] is not"),
        "{message}"
    );
    assert!(!message.contains("conv"), "{message}");
    for ignore in [["mu", "sigma"], ["module.sigma", "mu"], ["mu", "module.s*"]] {
        load(&bytes, &ignore).1.unwrap();
    }
    assert!(
        load(&bytes, &["mu", "sigma", "nu*"])
            .1
            .unwrap_err()
            .contains("`nu*` is to be ignored, but is not there")
    );
    // A prefix that no wrapper is known for.
    assert_eq!(load(&named(&small, &["1."], &["0.mean"]), &["0.*"]).0, "1.");
}

#[test]
fn one_of_several_copies_is_picked_by_its_label() {
    let small = crate::build("tiny-cnn", [1, 8, 8], 10, &Stream::new(7)).unwrap();
    let pick = |bytes: &[u8], entry: Option<&str>| Checkpoint::parse_for(bytes, &small, entry);
    let bytes = named(&small, &["model.", "model_ema."], &["model_ema.updates"]);
    assert_eq!(
        pick(&bytes, None).unwrap_err(),
        "every name of the network begins with `model.` or `model_ema.`; pick one"
    );
    for (entry, apart) in [("model", "model_ema"), ("model_ema.", "model")] {
        let found = pick(&bytes, Some(entry)).unwrap();
        assert_eq!(found.apart, [apart]);
        assert_eq!(
            found.load_into(&small, &[]).is_ok(),
            entry == "model",
            "its own `updates` is not expected"
        );
    }
    let message = pick(&bytes, Some("ema")).unwrap_err();
    assert_eq!(message, "it has no entry `ema`; there is `model` and `model_ema`");

    // What the robustness library saves: the copy inside the attacker, and normalisations of both.
    let more = ["module.normalizer.new_mean", "module.attacker.normalize.new_mean"];
    let bytes = named(&small, &["module.model.", "module.attacker.model."], &more);
    let message = pick(&bytes, None).unwrap_err();
    assert!(
        message.contains("`module.attacker.model.` or `module.model.`; pick one"),
        "{message}"
    );
    let found = pick(&bytes, Some("module.model")).unwrap();
    let message = found.load_into(&small, &[]).unwrap_err().to_string();
    assert!(
        message.contains("`module.normalizer.new_mean` [] is not expected"),
        "{message}"
    );
    assert!(!message.contains("attacker"), "{message}");
    found.load_into(&small, &["module.normalizer.*".into()]).unwrap();
    assert_eq!(
        pick(&bytes, Some("module.attacker")).unwrap().prefix,
        "module.attacker.model."
    );

    // The outermost names beside a copy with a prefix.
    let bytes = named(&small, &["", "ema."], &[]);
    assert!(pick(&bytes, None).unwrap_err().contains("2 times, as `.` and `ema`"));
    for entry in [".", "ema"] {
        pick(&bytes, Some(entry)).unwrap().load_into(&small, &[]).unwrap();
    }
}

fn network(name: &str, classes: usize) -> Network {
    crate::build(name, [3, 32, 32], classes, &Stream::new(7)).unwrap()
}

fn checkpoint(network: &Network) -> Checkpoint {
    Checkpoint::flat(Format::Zip, network.state().unwrap())
}

#[test]
fn the_unused_part_of_a_wide_network_may_be_there_or_not() {
    let wide = network("wrn-10-2", 10);
    let whole = checkpoint(&wide);
    assert!(whole.load_into(&wide, &[]).unwrap().kept.is_empty());
    let mut without = whole.clone();
    without.tensors.retain(|name, _| !name.starts_with("sub_block1."));
    let kept = without.load_into(&wide, &[]).unwrap().kept;
    assert_eq!(kept.len(), whole.tensors.len() - without.tensors.len());
    // Half of it is a mistake.
    let mut some = whole.clone();
    some.tensors.remove("sub_block1.layer.0.conv1.weight");
    let message = some.load_into(&wide, &[]).unwrap_err().to_string();
    assert!(
        message.contains("`sub_block1.layer.0.conv1.weight` [32, 16, 3, 3] is missing"),
        "{message}"
    );
}

#[test]
fn another_network_is_refused_and_says_where() {
    let wide = network("wrn-10-2", 10);
    let refuses = |checkpoint: &Checkpoint, part: &str| {
        let message = checkpoint.load_into(&wide, &[]).unwrap_err().to_string();
        assert!(message.contains(part), "`{part}` is not in: {message}");
    };
    refuses(
        &checkpoint(&network("wrn-10-2", 100)),
        "`fc.weight` is [100, 128] instead of [10, 128]",
    );
    refuses(
        &checkpoint(&network("wrn-10-1", 10)),
        "`fc.weight` is [10, 64] instead of [10, 128]",
    );
    refuses(
        &checkpoint(&network("resnet18", 10)),
        "`fc.weight` [10, 128] is missing",
    );
    // A deeper network has every entry of a shallower one.
    refuses(
        &checkpoint(&network("wrn-16-2", 10)),
        "`block1.layer.1.conv1.weight` [32, 32, 3, 3] is not expected",
    );
    let change = |name: &str, change: &dyn Fn(&Tensor) -> Tensor| {
        let mut changed = checkpoint(&wide);
        let tensor = change(&changed.tensors[name]);
        changed.tensors.insert(name.to_string(), tensor);
        changed
    };
    refuses(&change("fc.bias", &|tensor| (tensor / 0.0).unwrap()), "`fc.bias` holds");
    refuses(
        &change("bn1.weight", &|tensor| (tensor * 1e39).unwrap()),
        "`bn1.weight` holds inf",
    );
    refuses(
        &change("bn1.weight", &|tensor| tensor.to_dtype(DType::I64).unwrap()),
        "`bn1.weight` holds integers",
    );
    refuses(
        &change("bn1.running_var", &|tensor| tensor.neg().unwrap()),
        "`bn1.running_var` holds a negative variance",
    );
    let mut other = checkpoint(&wide);
    other.other.push("epoch".into());
    refuses(&other, "`epoch` is not a tensor");
    assert_eq!(other.load_into(&wide, &["epoch".into()]).unwrap().ignored, ["epoch"]);
    let message = other
        .load_into(&wide, &["epok".into(), "epoch".into()])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`epok` is to be ignored, but is not there"),
        "{message}"
    );
}
