//! What `torch.save` writes: zip files, the pickles in them, and the format before PyTorch 1.6.

use std::collections::BTreeMap;

use candle_core::DType;
use models::Checkpoint;
use testing::zip;

use crate::Rng;
use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

pub(super) fn targets() -> Vec<Target> {
    vec![zip_target(), pickle(), legacy()]
}

/// `{'w': tensor}` of two f32 numbers.
const PICKLE: &[u8] = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage\
ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.";

/// The same as PyTorch nests it, with memos, in an ordered dictionary with attributes.
const NESTED: &[u8] = b"\x80\x02}q\x00(X\x05\x00\x00\x00epochq\x01K\x07X\x0a\x00\x00\x00state_dictq\x02ccollections\nOrderedDict\n\
q\x03)Rq\x04X\x01\x00\x00\x00wq\x05ctorch._utils\n_rebuild_tensor_v2\nq\x06((X\x07\x00\x00\x00storageq\x07ctorch\nFloatStorage\nq\x08\
X\x01\x00\x00\x000q\x09X\x03\x00\x00\x00cpuq\x0aK\x02tq\x0bQK\x00K\x01K\x02\x86q\x0cK\x02K\x01\x86q\x0d\x89h\x03)Rq\x0etq\x0fRq\x10s\
}q\x11X\x09\x00\x00\x00_metadataq\x12h\x11sbu.";

const WORDS: &[&[u8]] = &[
    b"(",
    b"t",
    b"R",
    b"Q",
    b"}",
    b"]",
    b"e",
    b"u",
    b"s",
    b"b",
    b"a",
    b"l",
    b"d",
    b"0",
    b"1",
    b"2",
    b".",
    b"N",
    b"q\x00",
    b"h\x00",
    b"r\x00\x00\x00\x80",
    b"j\x05\x00\x00\x00",
    b"\x81",
    b"\x85",
    b"\x86",
    b"\x87",
    b"\x8a\x01\xff",
    b"\x8a\xff",
    b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00",
    b"\x8b\xff\xff\xff\x7f",
    b"\x8c\x01a",
    b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x93",
    b"\x94",
    b"\x95\x00\x00\x00\x00\x00\x00\x00\x00",
    b"K\xff",
    b"M\xff\xff",
    b"J\xff\xff\xff\xff",
    b"J\xff\xff\xff\x7f",
    b"X\xff\xff\xff\xff",
    b"ctorch\nFloatStorage\n",
    b"ctorch\nDoubleStorage\n",
    b"ctorch\nByteStorage\n",
    b"ctorch\nSize\n",
    b"cos\nsystem\n",
    b"cbuiltins\neval\n",
    b"cnumpy\ndtype\n",
    b"cargparse\nNamespace\n)\x81",
    b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"ctorch.nn.parameter\nParameter\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch._utils\n_rebuild_parameter\n",
    b"I4294967296\n",
    b"I-1\n",
    b"L99999999999999999999999999999999999999999L\n",
    b"I01\n",
    b"S'a'\n",
    b"V\\u0000\n",
    b"g0\n",
    b"p4\n",
    b"ios\nsystem\n",
    b"\x88",
    b"\x89",
];

fn numbers() -> Vec<u8> {
    [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn file(pickle: &[u8], data: &[u8]) -> Vec<u8> {
    zip(&[("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", data)])
}

/// The magic number, the protocol, the machine, the object, the storages' keys, and one storage.
fn old(object: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.",
        object,
        b"\x80\x02]X\x01\x00\x00\x000a.\x02\0\0\0\0\0\0\0",
        &numbers()[..],
    ]
    .concat()
}

/// Files that PyTorch itself wrote.
fn real(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = reference::vectors().join("checkpoints");
    names
        .iter()
        .map(|name| std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect()
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u64>)>;

/// Every tensor to the bit.
fn values(checkpoint: &Checkpoint) -> Tensors {
    let entries = checkpoint.tensors.iter().map(|(name, tensor)| {
        let flat = tensor.flatten_all().and_then(|flat| flat.to_dtype(DType::F64));
        let values: Vec<f64> = flat.and_then(|flat| flat.to_vec1()).unwrap_or_default();
        let bits = values.into_iter().map(f64::to_bits).collect();
        (name.clone(), (tensor.dims().to_vec(), bits))
    });
    entries.collect()
}

fn check(input: &Input, seeds: &[Vec<u8>]) -> Verdict {
    let Ok(checkpoint) = Checkpoint::parse(&input.bytes) else {
        return Verdict::Refused;
    };
    let bytes: usize = checkpoint.tensors.values().map(|tensor| tensor.elem_count()).sum();
    if bytes > 4 * input.bytes.len() {
        return Verdict::Wrong(format!("{bytes} numbers out of {} bytes", input.bytes.len()));
    }
    if let Demand::AsSeed(which) = input.demand {
        let seed = Checkpoint::parse(&seeds[which]).expect("a seed");
        // Names have no checksum of their own, so only what they name is compared.
        let contents = |checkpoint: &Checkpoint| values(checkpoint).into_values().collect::<Vec<_>>();
        if contents(&checkpoint) != contents(&seed) {
            return Verdict::Wrong("damage under a checksum was read as other content".into());
        }
    }
    Verdict::Accepted
}

/// Usually one of the small files, since a large one takes long and holds mainly numbers.
fn any(rng: &mut Rng, seeds: &[Vec<u8>], small: usize) -> usize {
    let choices = if rng.one_in(32) { seeds.len() } else { small };
    rng.below(choices)
}

fn zip_target() -> Target {
    let mut seeds = vec![file(PICKLE, &numbers()), file(NESTED, &numbers())];
    seeds.extend(real(&[
        "plain.pt",
        "half.pt",
        "strided_view.pt",
        "wrapped_state_dict.pt",
    ]));
    Target {
        name: "pt-zip",
        seeds,
        per_byte: 24,
        constant: 1 << 15,
        damage: Box::new(|rng, seeds| {
            let which = any(rng, seeds, 2);
            let mut bytes = seeds[which].clone();
            let words: &[&[u8]] = &[
                b"PK\x01\x02",
                b"PK\x03\x04",
                b"PK\x05\x06",
                b"PK\x06\x06",
                b"PK\x06\x07",
                b"\xff\xff\xff\xff",
            ];
            damage::bytes(rng, &mut bytes, &[], words);
            Input {
                bytes,
                demand: Demand::AsSeed(which),
            }
        }),
        check: Box::new(check),
    }
}

fn pickle() -> Target {
    Target {
        name: "pt-pickle",
        seeds: vec![file(PICKLE, &numbers()), file(NESTED, &numbers())],
        per_byte: 60,
        constant: 1 << 15,
        damage: Box::new(|rng, _| {
            let mut pickle = [PICKLE, NESTED][rng.below(2)].to_vec();
            let other = [PICKLE, NESTED][rng.below(2)];
            damage::bytes(rng, &mut pickle, other, WORDS);
            let mut data = numbers();
            if rng.one_in(6) {
                damage::bytes(rng, &mut data, &[], &[]);
            }
            Input {
                bytes: file(&pickle, &data),
                demand: Demand::None,
            }
        }),
        check: Box::new(check),
    }
}

fn legacy() -> Target {
    let mut seeds = vec![old(PICKLE), old(NESTED)];
    seeds.extend(real(&["legacy_not_zip.pt"]));
    Target {
        name: "pt-legacy",
        seeds,
        per_byte: 60,
        constant: 1 << 15,
        damage: Box::new(|rng, seeds| {
            let mut bytes = seeds[any(rng, seeds, 2)].clone();
            let other = &seeds[rng.below(2)];
            damage::bytes(rng, &mut bytes, other, WORDS);
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(check),
    }
}
