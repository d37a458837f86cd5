//! Checkpoints as other programs keep them: every way of putting one network, which PyTorch trained and saved, into a
//! file gives that network's counts.

mod common;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use common::{Place, bytes};
use testing::zip;

/// A tiny-cnn that PyTorch trained on digits. Of its 500 test images 479 are right, and FGSM at 0.1 leaves 336; both
/// counts are PyTorch's own.
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/tiny.pt");
const RIGHT: [&str; 2] = ["479 of 500", "336 of 500"];

/// The pickle of [`TINY`] without its first two bytes and its last: its dictionary as a value.
struct Tiny {
    dictionary: Vec<u8>,
    storages: Vec<(String, Vec<u8>)>,
}

fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    bytes[at..at + length]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

/// The entries of a zip file that keeps them unpacked.
fn entries(file: &[u8]) -> Vec<(String, Vec<u8>)> {
    let end = file.windows(4).rposition(|window| window == b"PK\x05\x06").unwrap();
    let mut at = number(file, end + 16, 4);
    let mut entries = Vec::new();
    while file[at..].starts_with(b"PK\x01\x02") {
        let lengths = [28, 30, 32].map(|place| number(file, at + place, 2));
        let (size, start) = (number(file, at + 24, 4), number(file, at + 42, 4));
        let name = String::from_utf8(file[at + 46..at + 46 + lengths[0]].to_vec()).unwrap();
        let content = start + 30 + number(file, start + 26, 2) + number(file, start + 28, 2);
        entries.push((name, file[content..content + size].to_vec()));
        at += 46 + lengths.iter().sum::<usize>();
    }
    entries
}

/// A pickle's start: the class to which the items refer, and an empty dictionary.
const HEAD: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x000}";

/// A key of a dictionary.
fn key(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Tiny {
    fn read() -> Self {
        let mut storages = entries(&bytes(TINY.as_ref()));
        let at = storages
            .iter()
            .position(|(name, _)| name.ends_with("data.pkl"))
            .unwrap();
        let (_, pickle) = storages.remove(at);
        let dictionary = pickle[2..pickle.len() - 1].to_vec();
        storages.retain(|(name, _)| name.contains("/data/"));
        for (name, _) in &mut storages {
            *name = format!("a/data/{}", name.rsplit('/').next().unwrap());
        }
        Self { dictionary, storages }
    }

    /// The dictionary with something before every name. Names are texts with a dot.
    fn prefixed(&self, prefix: &str) -> Vec<u8> {
        let mut result = Vec::new();
        let mut rest = &self.dictionary[..];
        while let Some(at) = rest
            .windows(5)
            .position(|window| window[0] == b'X' && window[2..] == [0, 0, 0])
        {
            let length = usize::from(rest[at + 1]);
            let text = &rest[at + 5..at + 5 + length];
            result.extend(&rest[..at]);
            let text = std::str::from_utf8(text).unwrap();
            result.extend(key(&if text.contains('.') {
                format!("{prefix}{text}")
            } else {
                text.into()
            }));
            rest = &rest[at + 5 + length..];
        }
        result.extend(rest);
        result
    }

    /// The items of the dictionary, to be put into another after [`HEAD`].
    fn items(&self, prefix: &str) -> Vec<u8> {
        let all = self.prefixed(prefix);
        let start = all.iter().position(|byte| *byte == b'(').unwrap();
        let metadata = all.windows(9).position(|window| window == b"_metadata").unwrap();
        let end = all[..metadata].windows(2).rposition(|window| window == b"u}").unwrap();
        all[start..=end].to_vec()
    }

    /// A file of a dictionary of these values. The network's own dictionary goes without memos of others.
    fn file(&self, values: &[(&str, &[u8])]) -> Vec<u8> {
        let mut pickle = b"\x80\x02}".to_vec();
        for (name, value) in values {
            pickle.extend([&key(name), *value, b"s"].concat());
        }
        pickle.push(b'.');
        self.root(pickle)
    }

    fn root(&self, pickle: Vec<u8>) -> Vec<u8> {
        let storages = self
            .storages
            .iter()
            .map(|(name, numbers)| (name.as_str(), &numbers[..]));
        let entries: Vec<(&str, &[u8])> = [("a/data.pkl", &pickle[..])].into_iter().chain(storages).collect();
        zip(&entries)
    }
}

fn attack(place: &Place, content: &[u8], more: &[&str]) -> (i32, String, String) {
    std::fs::write(place.path("theirs.pt"), content).unwrap();
    let network = [
        "attack",
        "--checkpoint",
        "theirs.pt",
        "--model",
        "tiny-cnn",
        "--dataset",
        "digits",
    ];
    place.run(&[&network[..], &["--threat", "linf:0.1", "--attack", "fgsm"], more].concat())
}

#[track_caller]
fn right(place: &Place, content: &[u8], more: &[&str]) -> String {
    let (code, out, err) = attack(place, content, more);
    assert_eq!(code, 0, "{err}");
    for count in RIGHT {
        assert!(out.contains(count), "{out}");
    }
    err
}

#[track_caller]
fn refused(place: &Place, content: &[u8], more: &[&str], parts: &[&str]) {
    let (code, _, err) = attack(place, content, more);
    assert_eq!(code, 2, "{err}");
    for part in parts {
        assert!(err.contains(part), "`{part}` is not in:\n{err}");
    }
    // What is missing or not expected is not listed where the choice is the problem.
    assert!(err.len() < 2000, "{err}");
}

#[test]
fn an_average_is_read_with_its_count() {
    let (place, tiny) = (Place::new(""), Tiny::read());
    right(&place, &bytes(TINY.as_ref()), &[]);
    let count = b"K\x07";
    // As `torch.optim.swa_utils.AveragedModel` names its parts, and the count as a plain number.
    let content = tiny.root([HEAD, &tiny.items("module."), &key("n_averaged"), count, b"s."].concat());
    right(&place, &content, &[]);
    right(&place, &content, &["--ignore", "n_averaged"]);
    let content = tiny.root([HEAD, &tiny.items("module."), &key("mu"), count, b"s."].concat());
    refused(&place, &content, &[], &["`mu` is not a tensor", "--ignore"]);
    // Where it is a tensor of the file, it may be a normalisation.
    let mut named = models::Checkpoint::read(TINY.as_ref()).unwrap().tensors;
    named.insert("mu".into(), Tensor::new(&[0.13f32], &Device::Cpu).unwrap());
    let named: HashMap<String, Tensor> = named.into_iter().collect();
    candle_core::safetensors::save(&named, place.path("named")).unwrap();
    refused(
        &place,
        &bytes(&place.path("named")),
        &[],
        &["`mu` [1] is not expected", "give them with --mean and --std"],
    );
    let err = right(&place, &content, &["--ignore", "mu"]);
    assert!(
        err.contains("prefix `module.` taken off") && err.contains("ignored as asked: `mu`"),
        "{err}"
    );
}

#[test]
fn one_of_several_copies_is_asked_for() {
    let (place, tiny) = (Place::new(""), Tiny::read());
    let network = &tiny.dictionary[..];
    for name in [
        "ema",
        "state_dict_ema",
        "rmodel",
        "params",
        "teacher",
        "weights",
        "model_ema",
    ] {
        let err = right(&place, &tiny.file(&[(name, network), ("epoch", b"K\x07")]), &[]);
        assert!(err.contains(&format!("parameters found under `{name}`")), "{err}");
    }
    for names in [
        ["model", "ema"],
        ["model_state_dict", "unaveraged_model_state_dict"],
        ["model", "state_dict"],
    ] {
        let content = tiny.file(&[(names[0], network), (names[1], network), ("epoch", b"K\x07")]);
        let options = names.map(|name| format!("`--entry {name}`"));
        refused(
            &place,
            &content,
            &[],
            &["the network 2 times", &options[0], &options[1]],
        );
        for name in names {
            right(&place, &content, &["--entry", name]);
        }
        refused(
            &place,
            &content,
            &["--entry", "emma"],
            &["no entry `emma`", names[0], names[1]],
        );
    }
    // Both copies in one flat dictionary.
    for prefixes in [["model.", "model_ema."], ["module.model.", "module.attacker.model."]] {
        let content = tiny.root([HEAD, &tiny.items(prefixes[0]), &tiny.items(prefixes[1]), b"."].concat());
        let quoted = prefixes.map(|prefix| format!("`{prefix}`"));
        refused(
            &place,
            &content,
            &[],
            &[
                "every name of the network begins with",
                &quoted[0],
                &quoted[1],
                "--entry",
            ],
        );
        for prefix in prefixes {
            right(&place, &content, &["--entry", prefix.trim_end_matches('.')]);
        }
    }
    // The outermost names, and a dictionary beside them.
    let content = tiny.root([HEAD, &tiny.items(""), &key("ema"), network, b"s."].concat());
    refused(&place, &content, &[], &["`--entry .`", "`--entry ema`"]);
    right(&place, &content, &["--entry", "."]);
    right(&place, &content, &["--entry", "ema"]);
}

#[test]
fn numbers_of_numpy_beside_the_weights_do_no_harm() {
    let (place, tiny) = (Place::new(""), Tiny::read());
    let scalar = b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87RC\x08abcdefgh\x86R";
    let options = b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrK\x01sb";
    right(
        &place,
        &tiny.file(&[("args", options), ("best", scalar), ("net", &tiny.dictionary)]),
        &[],
    );
    let harmful = b"cos\nsystem\nX\x0c\x00\x00\x00touch harm.x\x85R";
    refused(
        &place,
        &tiny.file(&[("args", harmful), ("net", &tiny.dictionary)]),
        &[],
        &[
            "`os.system`",
            "nothing of a pickle is executed",
            "do not open this file elsewhere",
        ],
    );
    assert!(!place.path("harm.x").exists());
}

#[test]
fn a_mean_in_other_units_is_refused() {
    let place = Place::new("");
    let tiny = bytes(TINY.as_ref());
    refused(
        &place,
        &tiny,
        &["--mean", "125.3", "--std", "63"],
        &[
            "--mean 125.3: images here are in [0, 1]",
            "divide them by 255",
            "--mean 0.491373",
        ],
    );
    refused(
        &place,
        &tiny,
        &["--mean", "0.5", "--std", "63"],
        &["--std 63", "--std 0.247059"],
    );
    right(&place, &tiny, &["--mean", "0", "--std", "1"]);
}

/// An array as `numpy.save` writes it.
fn npy(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    let (kind, numbers): (&str, Vec<u8>) = match tensor.dtype() {
        DType::I64 => (
            "<i8",
            flat.to_vec1::<i64>()
                .unwrap()
                .into_iter()
                .flat_map(i64::to_le_bytes)
                .collect(),
        ),
        _ => (
            "<f4",
            flat.to_vec1::<f32>()
                .unwrap()
                .into_iter()
                .flat_map(f32::to_le_bytes)
                .collect(),
        ),
    };
    let shape: String = tensor.dims().iter().map(|size| format!("{size}, ")).collect();
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    [
        b"\x93NUMPY\x01\x00",
        &(header.len() as u16).to_le_bytes()[..],
        header.as_bytes(),
        &numbers,
    ]
    .concat()
}

#[test]
fn images_of_other_programs_are_counted() {
    let place = Place::new("");
    let (code, _, err) = attack(&place, &bytes(TINY.as_ref()), &["--save-examples", "kept"]);
    assert_eq!(code, 0, "{err}");
    let tensors = candle_core::safetensors::load(place.path("kept"), &Device::Cpu).unwrap();
    let verify = |name: &str, content: &[u8], more: &[&str]| {
        std::fs::write(place.path(name), content).unwrap();
        let network = [
            "verify-examples",
            name,
            "--checkpoint",
            "theirs.pt",
            "--model",
            "tiny-cnn",
        ];
        place.run(&[&network[..], &["--threat", "linf:0.1"], more].concat())
    };
    // What AutoAttack, torchattacks and a tuple keep: the images, and perhaps the labels.
    for (images, labels) in [("adv_complete", None), ("adv_inputs", Some("labels")), ("0", Some("1"))] {
        let mut kept = HashMap::from([(images, tensors["adversarial"].clone())]);
        kept.extend(labels.map(|name| (name, tensors["labels"].clone())));
        candle_core::safetensors::save(&kept, place.path("theirs")).unwrap();
        let arrays = kept.iter().map(|(name, tensor)| (format!("{name}.npy"), npy(tensor)));
        let arrays: Vec<(String, Vec<u8>)> = arrays.collect();
        let entries = arrays.iter().map(|(name, content)| (name.as_str(), &content[..]));
        let arrays = zip(&entries.collect::<Vec<_>>());
        for content in [bytes(&place.path("theirs")), arrays] {
            let (code, out, err) = verify("images", &content, &["--dataset", "digits"]);
            assert_eq!(code, 0, "{images}: {out}{err}");
            assert!(out.contains("are the first of the test split, in order"), "{out}");
            assert!(
                out.contains("still correct: 336 of 500") && out.contains("every rule is kept"),
                "{out}"
            );
            let (code, _, err) = verify("images", &content, &[]);
            assert!(
                code == 2 && err.contains("name the data set of its images with --dataset"),
                "{err}"
            );
        }
    }
    // In an order of its own, as from a loader that shuffles.
    let order = Tensor::from_iter((0..500u32).rev(), &Device::Cpu).unwrap();
    let shuffled = tensors["adversarial"].index_select(&order, 0).unwrap();
    candle_core::safetensors::save(&HashMap::from([("x_adv", shuffled)]), place.path("theirs")).unwrap();
    let (code, out, err) = verify("images", &bytes(&place.path("theirs")), &["--dataset", "digits"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("found by the nearest one") && out.contains("still correct: 336 of 500"),
        "{out}"
    );
}
