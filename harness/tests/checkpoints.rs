//! Networks of others: exported, attacked, their adversarial images kept and checked again.

mod common;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{Place, SMALL, bytes};

/// A place where the small matrix has run and its standard defense is exported to `it.safetensors`.
fn exported() -> Place {
    let place = Place::new(SMALL);
    place.expect(0, &["m.yaml"]);
    let arguments = [
        "export",
        "runs/small",
        "--filter",
        "defense=standard",
        "--filter",
        "checkpoint=last",
    ];
    place.expect(0, &[&arguments[..], &["--out", "it.safetensors"]].concat());
    place
}

const NETWORK: [&str; 4] = ["--checkpoint", "it.safetensors", "--model", "tiny-cnn"];
const ATTACK: [&str; 5] = ["--dataset", "digits", "--limit", "40", "--threat=linf:0.1"];
const PGD: &str = "{ name: pgd, steps: 3, step_size: 0.05 }";

fn attack<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["attack"], &NETWORK[..], &ATTACK, more].concat()
}

#[test]
fn an_exported_network_gives_what_its_run_gave() {
    let place = exported();
    let again = [
        "export",
        "runs/small",
        "--filter",
        "defense=standard",
        "--filter",
        "checkpoint=last",
        "--out",
        "again",
    ];
    place.expect(0, &again);
    assert_eq!(
        bytes(&place.path("it.safetensors")),
        bytes(&place.path("again")),
        "equal content is equal bytes"
    );
    let tensors = candle_core::safetensors::load(place.path("it.safetensors"), &Device::Cpu).unwrap();
    assert!(
        tensors.contains_key("conv1.weight") && !tensors.keys().any(|name| name.contains("model.")),
        "{:?}",
        tensors.keys()
    );
    assert!(
        tensors
            .iter()
            .all(|(name, it)| (it.dtype() == DType::I64) == name.ends_with("num_batches_tracked"))
    );

    let (out, _) = place.expect(0, &attack(&["--attack", "fgsm", "--attack", PGD, "--out", "rows"]));
    assert!(out.contains("PGD-3") && out.contains("95 % interval"), "{out}");
    let read = |file: &str| results::read_rows(&place.path(file)).unwrap();
    let (ours, run) = (read("rows/results.parquet"), read("runs/small/results.parquet"));
    assert_eq!(ours.len(), 3);
    // The matrix evaluates `best`; what was exported as `best` must give those very counts.
    place.expect(
        0,
        &[
            "export",
            "runs/small",
            "--filter",
            "defense=standard",
            "--out",
            "it.safetensors",
        ],
    );
    place.expect(0, &attack(&["--attack", "fgsm", "--attack", PGD, "--out", "best"]));
    for row in read("best/results.parquet") {
        let same = run
            .iter()
            .find(|it| it.defense == "Standard" && it.attack == row.attack && it.kind == row.kind);
        let same = same.unwrap_or_else(|| panic!("the run has no {}", row.attack));
        assert_eq!(
            (row.n, row.n_correct, row.forwards),
            (same.n, same.n_correct, same.forwards),
            "{}",
            row.attack
        );
        assert_eq!(
            (row.accuracy_low, row.max_delta),
            (same.accuracy_low, same.max_delta),
            "{}",
            row.attack
        );
    }
    assert!(place.path("best/results.csv").exists() && place.path("best/per_example.parquet").exists());
    // A checkpoint of a run is one as well, without being exported.
    let mut cells = place.cells("small", "digits-tiny-cnn-standard-s0");
    cells.retain(|folder| folder.to_string_lossy().ends_with("-s0"));
    let [cell] = &cells[..] else {
        panic!("one training, not {cells:?}")
    };
    let cell = cell.to_str().unwrap();
    place.expect(0, &["export", cell, "--filter", "checkpoint=last", "--out", "cell"]);
    assert_eq!(bytes(&place.path("cell")), bytes(&place.path("again")));
    let file = format!("{cell}/last.safetensors");
    place.expect(0, &["export", &file, "--out", "file"]);
    assert_eq!(bytes(&place.path("file")), bytes(&place.path("again")));
    place.expect(
        0,
        &[&["attack", "--checkpoint", &file, "--model", "tiny-cnn"], &ATTACK[..]].concat(),
    );
}

#[test]
fn an_export_says_which_trainings_there_are() {
    let place = exported();
    let check = |code: i32, arguments: &[&str], part: &str| {
        let (_, err) = place.expect(code, &[&["export"], arguments, &["--out", "none"]].concat());
        assert!(err.contains(part), "{err}");
        assert!(!place.path("none").exists());
    };
    check(2, &["runs/small"], "several trainings match: ");
    check(4, &["runs/small", "--filter", "defense=mart"], "there are ");
    check(2, &["runs/small", "--filter", "defence=mart"], "a key among dataset");
    check(2, &["runs/small", "--filter", "checkpoint=first"], "`best` and `last`");
    check(2, &["runs"], "no checkpoint of a finished training");
    check(2, &["m.yaml"], "truncated, damaged or foreign");
}

/// A mistake: exit code 2, an error with all these parts, and nothing written.
#[track_caller]
fn mistake(place: &Place, arguments: &[&str], parts: &[&str]) {
    let written = ["--out", "written", "--save-examples", "kept"];
    let (_, err) = place.expect(2, &[&["attack"], arguments, &written].concat());
    for part in parts {
        assert!(err.contains(part), "`{part}` is not in:\n{err}");
    }
    assert!(!place.path("written").exists() && !place.path("kept").exists());
}

#[test]
fn a_network_that_does_not_fit_is_refused() {
    let place = exported();
    let one = ["--attack", "fgsm"];
    let with = |model: &'static str, dataset: &'static str| {
        let network = ["--checkpoint", "it.safetensors", "--model", model, "--dataset", dataset];
        [&network[..], &one].concat()
    };
    mistake(&place, &with("tiny-cn", "digits"), &["did you mean `tiny-cnn`?"]);
    mistake(&place, &with("tiny-cnn", "digit"), &["did you mean `digits`?"]);
    mistake(
        &place,
        &with("resnet18", "digits"),
        &[
            "`conv1.weight` is",
            "instead of [64, 1, 3, 3]",
            "`linear.weight`",
            "--model",
        ],
    );
    // Other channels and classes.
    mistake(
        &place,
        &with("tiny-cnn", "cifar100"),
        &["3×32×32 and 100 classes", "`conv1.weight` is"],
    );
    let network = [&NETWORK[..], &["--dataset", "digits"]].concat();
    mistake(
        &place,
        &[&network[..], &["--attack", "pdg"]].concat(),
        &["did you mean `pgd`?"],
    );
    mistake(
        &place,
        &[&network[..], &one, &["--threat", "8/255"]].concat(),
        &["linf:8/255"],
    );
    mistake(
        &place,
        &[&network[..], &one, &["--limit", "0"]].concat(),
        &["--limit must be at least 1"],
    );
    mistake(
        &place,
        &[&network[..], &one, &["--mean", "0.5,0.5", "--std", "1,1"]].concat(),
        &["each of the 1 channels"],
    );
    mistake(
        &place,
        &[&network[..], &one, &["--mean", "0.5", "--std", "0"]].concat(),
        &["positive"],
    );
    mistake(
        &place,
        &[&network[..], &one, &["--ignore", "x"]].concat(),
        &["`x` is to be ignored"],
    );
    mistake(
        &place,
        &[&network[..], &one, &one].concat(),
        &["--save-examples keeps the images of one attack"],
    );

    let tensors = candle_core::safetensors::load(place.path("it.safetensors"), &Device::Cpu).unwrap();
    let save = |tensors: &HashMap<String, Tensor>| {
        candle_core::safetensors::save(tensors, place.path("it.safetensors")).unwrap()
    };
    let mut renamed = tensors.clone();
    let weight = renamed.remove("conv1.weight").unwrap();
    renamed.insert("convolution1.weight".into(), weight.clone());
    save(&renamed);
    mistake(
        &place,
        &[&network[..], &one].concat(),
        &[
            "`conv1.weight` [",
            "is missing",
            "`convolution1.weight`",
            "is not expected",
        ],
    );
    let mut nan = tensors.clone();
    nan.insert("conv1.weight".into(), (weight * f64::NAN).unwrap());
    save(&nan);
    mistake(&place, &[&network[..], &one].concat(), &["`conv1.weight` holds NaN"]);
    let mut more = tensors;
    more.insert(
        "extra.weight".into(),
        Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap(),
    );
    save(&more);
    mistake(
        &place,
        &[&network[..], &one].concat(),
        &["`extra.weight` [3] is not expected", "--ignore"],
    );
    let (_, err) = place.expect(0, &attack(&["--attack", "fgsm", "--ignore", "extra.weight"]));
    assert!(err.contains("ignored as asked: `extra.weight`"), "{err}");

    std::fs::write(place.path("it.safetensors"), "not a checkpoint").unwrap();
    mistake(
        &place,
        &[&network[..], &one].concat(),
        &["it.safetensors", "neither safetensors nor"],
    );
    std::fs::remove_file(place.path("it.safetensors")).unwrap();
    mistake(
        &place,
        &[&network[..], &one].concat(),
        &["it.safetensors", "cannot read"],
    );
}

#[test]
fn files_of_others_that_are_faulty_are_refused() {
    let place = Place::new(SMALL);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reference/vectors/checkpoints");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "pt") {
            continue;
        }
        seen += 1;
        // Good or faulty, none of them is a network of this width.
        let shown = file.to_str().unwrap();
        let arguments = [
            "--checkpoint",
            shown,
            "--model",
            "resnet18",
            "--dataset",
            "digits",
            "--attack",
            "fgsm",
        ];
        mistake(&place, &arguments, &[shown]);
    }
    assert!(seen >= 16, "{seen} files");
}

/// Adversarial images in a file, changed by `change`.
fn changed(place: &Place, name: &str, change: impl Fn(&mut HashMap<String, Tensor>)) {
    let mut tensors = candle_core::safetensors::load(place.path("kept.safetensors"), &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, place.path(name)).unwrap();
}

/// One pixel of one image set to a value.
fn pixel(images: &Tensor, value: f32) -> Tensor {
    let mut values = images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[70] = value;
    Tensor::from_vec(values, images.dims(), &Device::Cpu).unwrap()
}

#[test]
fn saved_examples_are_verified_and_every_broken_rule_is_named() {
    let place = exported();
    let (attacked, _) = place.expect(0, &attack(&["--attack", PGD, "--save-examples", "kept.safetensors"]));
    let verify = |file: &'static str, more: &[&'static str]| [&["verify-examples", file], &NETWORK[..], more].concat();
    let (out, _) = place.expect(0, &verify("kept.safetensors", &[]));
    let line = out.lines().find(|line| line.starts_with("still correct: ")).unwrap();
    let count = line.trim_start_matches("still correct: ").split(" = ").next().unwrap();
    let row = attacked.lines().find(|line| line.contains("PGD-3")).unwrap();
    assert!(row.contains(count), "{row}\n{line}");
    assert!(
        out.contains("the file's own count is the same") && out.contains("every rule is kept"),
        "{out}"
    );
    // With the data set's own images and labels beside.
    place.expect(0, &verify("kept.safetensors", &["--dataset", "digits"]));
    // Within a smaller ball than they were made in.
    let (_, err) = place.expect(6, &verify("kept.safetensors", &["--threat", "linf:0.05"]));
    assert!(err.contains("exceed linf ≤ 0.05"), "{err}");

    // Files of others have no description of ours, so threat model and data set are given.
    let others = ["--dataset", "digits", "--threat", "linf:0.1"];
    let check = |name: &'static str, part: &str, change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        changed(&place, name, change);
        let (out, err) = place.expect(6, &verify(name, &others));
        assert!(
            err.contains(part) && out.contains("broken: "),
            "`{part}` is not in:\n{err}"
        );
    };
    let set = |key: &'static str, value: f32| {
        move |tensors: &mut HashMap<String, Tensor>| {
            let images = pixel(&tensors[key], value);
            tensors.insert(key.into(), images);
        }
    };
    check("nan", "1 of 40 images hold NaN", &set("adversarial", f32::NAN));
    check("far", "1 of 40 images exceed", &set("adversarial", 0.999));
    check("outside", "1 of 40 images leave [0, 1]", &set("adversarial", 1.001));
    check("moved", "1 clean images are not those of digits", &set("clean", 0.77));
    check("labels", "40 labels are no class of digits", &|tensors| {
        tensors.insert("labels".into(), Tensor::full(11i64, 40, &Device::Cpu).unwrap());
    });
    // Every clean image by its id, under the names that others use.
    changed(&place, "short", |tensors| {
        let images = tensors.remove("adversarial").unwrap();
        let labels = tensors.remove("labels").unwrap();
        tensors.remove("clean");
        tensors.insert("x_adv".into(), images);
        tensors.insert("y".into(), labels);
    });
    place.expect(0, &verify("short", &others));

    // Without ids the clean images cannot be compared, and that is said.
    changed(&place, "pairs", |tensors| {
        tensors.remove("ids");
    });
    let (out, _) = place.expect(0, &verify("pairs", &others));
    assert!(out.contains("no `ids`") && out.contains("every rule is kept"), "{out}");

    let refused = |name: &'static str, more: &[&'static str], part: &str| {
        let (_, err) = place.expect(2, &verify(name, more));
        assert!(err.contains(part), "`{part}` is not in:\n{err}");
    };
    refused("short", &["--dataset", "digits"], "--threat");
    refused("short", &["--threat", "linf:0.1"], "--dataset");
    refused("short", &["--dataset", "mnist", "--threat", "linf:0.1"], "[1, 28, 28]");
    changed(&place, "nobody", |tensors| {
        tensors.remove("clean");
        tensors.remove("ids");
    });
    // Each is found by the image near it, if one is near enough.
    let (out, _) = place.expect(0, &verify("nobody", &others));
    assert!(
        out.contains("found by the nearest one") && out.contains("every rule is kept"),
        "{out}"
    );
    refused("nobody", &["--threat", "linf:0.1"], "--dataset");
    let near = ["--dataset", "digits", "--threat", "linf:0.0001"];
    refused("nobody", &near, "so the unperturbed images are unknown");
    refused("it.safetensors", &others, "there is no tensor `adversarial`");
    refused("m.yaml", &others, "neither safetensors nor");

    // Another checkpoint of the same network: counted, and said.
    place.expect(
        0,
        &[
            "export",
            "runs/small",
            "--filter",
            "defense=natural",
            "--filter",
            "seed=0",
            "--out",
            "it.safetensors",
        ],
    );
    let (out, _) = place.expect(0, &verify("kept.safetensors", &[]));
    assert!(out.contains("made on another checkpoint"), "{out}");
}

#[test]
fn a_claim_that_does_not_hold_is_noticed() {
    let place = exported();
    place.expect(0, &attack(&["--attack", PGD, "--save-examples", "kept.safetensors"]));
    let mut file = bytes(&place.path("kept.safetensors"));
    let key = b"\\\"correct\\\":";
    let at = file.windows(key.len()).position(|it| it == key).expect("a claim") + key.len();
    // Another digit is another claim of the same length.
    file[at] = if file[at] == b'1' { b'2' } else { b'1' };
    std::fs::write(place.path("kept.safetensors"), file).unwrap();
    let (_, err) = place.expect(6, &[&["verify-examples", "kept.safetensors"], &NETWORK[..]].concat());
    assert!(err.contains("still correct, this checkpoint gives"), "{err}");
}

/// Labels of letters that names of folders lack choose a network all the same.
#[test]
fn an_export_finds_any_label() {
    let place = Place::new(&SMALL.replace(
        "  - natural\n  - { name: standard, attack: { steps: 2 } }\n",
        "  - { name: natural, label: 鲁棒 }\n  - { name: natural, label: 基线, recipe: { epochs: 1 } }\n  \
         - { name: standard, label: S⁺, attack: { steps: 2 } }\n  \
         - { name: standard, label: S⁻, attack: { steps: 1, step_size: 0.1 } }\n",
    ));
    place.expect(0, &["m.yaml"]);
    let mut weights = Vec::new();
    for (at, label) in ["鲁棒", "基线", "S⁺", "S⁻"].into_iter().enumerate() {
        let (filter, out) = (format!("defense={label}"), format!("out-{at}"));
        place.expect(0, &["export", "runs/small", "--filter", &filter, "--out", &out]);
        weights.push(bytes(&place.path(&out)));
    }
    for (at, one) in weights.iter().enumerate() {
        assert!(weights[..at].iter().all(|other| other != one), "{at}");
    }
    let (_, err) = place.expect(
        4,
        &["export", "runs/small", "--filter", "defense=别的", "--out", "none"],
    );
    assert!(err.contains("no training passes the filters"), "{err}");
}
