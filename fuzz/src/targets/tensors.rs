//! safetensors: anybody's, and the checkpoints of our own runs.

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::Value;

use crate::Rng;
use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

pub(super) fn targets() -> Vec<Target> {
    vec![foreign(), ours()]
}

const WORDS: &[&[u8]] = &[
    b"\"dtype\":\"F32\"",
    b"\"dtype\":\"BF16\"",
    b"\"dtype\":\"F8_E4M3\"",
    b"\"dtype\":\"F4\"",
    b"\"shape\":[0]",
    b"\"shape\":[18446744073709551615]",
    b"\"shape\":[4294967296,4294967296]",
    b"\"shape\":[]",
    b"\"data_offsets\":[0,0]",
    b"\"data_offsets\":[8,4]",
    b"\"data_offsets\":[0,18446744073709551615]",
    b"\"__metadata__\":{\"a\":\"b\"},",
    b"\"__metadata__\":null,",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\\u0000",
    b"{",
    b"}",
    b",",
];

fn seeds() -> Vec<Vec<u8>> {
    let bytes: Vec<u8> = (0..96u8).collect();
    let view = |dtype, shape: &[usize], length| TensorView::new(dtype, shape.to_vec(), &bytes[..length]).expect("fits");
    let save = |views: Vec<(&str, TensorView<'_>)>, about: Option<(&str, &str)>| {
        let about = about.map(|(key, text)| [(key.to_string(), text.to_string())].into());
        serialize(views, about).expect("it serializes")
    };
    vec![
        save(
            vec![
                ("conv.weight", view(Dtype::F32, &[2, 3, 2, 2], 96)),
                ("conv.bias", view(Dtype::F16, &[2], 4)),
                ("norm.num_batches_tracked", view(Dtype::I64, &[], 8)),
            ],
            Some(("format", "pt")),
        ),
        save(
            vec![("w", view(Dtype::U8, &[5], 5)), ("e", view(Dtype::F64, &[0, 3], 0))],
            None,
        ),
    ]
}

/// The header of a file and the bytes after it.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// A header with the bytes after it, and a length that fits.
fn join(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn break_one(rng: &mut Rng, seeds: &[Vec<u8>]) -> Input {
    let seed = &seeds[rng.below(seeds.len())];
    let other = &seeds[rng.below(seeds.len())];
    let (header, data) = parts(seed).expect("a seed");
    let bytes = match rng.below(4) {
        0 => {
            let mut bytes = seed.clone();
            damage::bytes(rng, &mut bytes, other, WORDS);
            bytes
        }
        1 => {
            let mut header = header.to_vec();
            damage::bytes(rng, &mut header, other, WORDS);
            join(&header, data)
        }
        _ => {
            let mut tree: Value = serde_json::from_slice(header).expect("a seed");
            damage::value(rng, &mut tree);
            let mut data = data.to_vec();
            if rng.one_in(3) {
                damage::bytes(rng, &mut data, &[], &[]);
            }
            join(tree.to_string().as_bytes(), &data)
        }
    };
    Input {
        bytes,
        demand: Demand::None,
    }
}

fn bits(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "F64" | "I64" | "U64" | "C64" => 64,
        "F32" | "I32" | "U32" => 32,
        "F16" | "BF16" | "I16" | "U16" => 16,
        "I8" | "U8" | "BOOL" => 8,
        _ => return None,
    })
}

/// Whether a file holds exactly these tensors, by a reading of its header of our own: every span as long as
/// its shape needs, and together all bytes after the header, once.
fn is_exact(bytes: &[u8], found: &[(String, Vec<usize>)]) -> Result<(), String> {
    let (header, data) = parts(bytes).ok_or("its header is longer than it is")?;
    let header: Value = serde_json::from_slice(header).map_err(|error| format!("its header is not JSON: {error}"))?;
    let header = header.as_object().ok_or("its header is not an object")?;
    let mut spans = Vec::new();
    let mut names = Vec::new();
    for (name, about) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let number = |value: &Value| value.as_u64().map(|number| number as usize);
        let shape: Option<Vec<usize>> = about["shape"]
            .as_array()
            .and_then(|sizes| sizes.iter().map(number).collect());
        let span: Option<Vec<usize>> = about["data_offsets"]
            .as_array()
            .and_then(|ends| ends.iter().map(number).collect());
        let (Some(shape), Some(span), Some(bits)) = (shape, span, about["dtype"].as_str().and_then(bits)) else {
            return Err(format!("`{name}` has no shape, span or type"));
        };
        let needed = shape.iter().try_fold(bits / 8, |n, size| n.checked_mul(*size));
        if span.len() != 2 || span[1].checked_sub(span[0]) != needed {
            return Err(format!("`{name}` is {shape:?} in {span:?}"));
        }
        spans.push((span[0], span[1]));
        names.push((name.clone(), shape));
    }
    names.sort();
    let mut found = found.to_vec();
    found.sort();
    if names != found {
        return Err(format!("{found:?} was read, {names:?} is there"));
    }
    spans.sort_unstable();
    let end = spans.iter().try_fold(0, |end, span| (span.0 == end).then_some(span.1));
    if end == Some(data.len()) {
        return Ok(());
    }
    Err(format!("the spans {spans:?} are not the {} bytes", data.len()))
}

fn evaluate(bytes: &[u8], found: Result<Vec<(String, Vec<usize>)>, String>) -> Verdict {
    let Ok(found) = found else { return Verdict::Refused };
    match is_exact(bytes, &found) {
        Ok(()) => Verdict::Accepted,
        Err(problem) => Verdict::Wrong(problem),
    }
}

fn foreign() -> Target {
    Target {
        name: "safetensors",
        seeds: seeds(),
        per_byte: 24,
        constant: 1 << 15,
        damage: Box::new(break_one),
        check: Box::new(|input, _| {
            // Another format's first bytes are another target's.
            if input.bytes.starts_with(b"PK") {
                return Verdict::Refused;
            }
            let found = models::Checkpoint::parse(&input.bytes).map(|checkpoint| {
                let prefix = &checkpoint.prefix;
                let tensors = checkpoint.tensors.iter();
                tensors
                    .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.dims().to_vec()))
                    .collect()
            });
            evaluate(&input.bytes, found)
        }),
    }
}

fn ours() -> Target {
    Target {
        name: "checkpoint",
        seeds: vec![harness::fuzzing::sample_checkpoint()],
        per_byte: 24,
        constant: 1 << 15,
        damage: Box::new(break_one),
        check: Box::new(|input, _| evaluate(&input.bytes, harness::fuzzing::checkpoint(&input.bytes))),
    }
}
