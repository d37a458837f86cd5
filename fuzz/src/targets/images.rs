//! IDX, plain and in gzip, and binary CIFAR.

use std::io::{Read, Write};

use datasets::formats;

use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

/// Images of 4 × 5.
const IMAGE: [usize; 2] = [4, 5];
/// More items are refused.
const MOST: usize = 60;

pub(super) fn targets() -> Vec<Target> {
    vec![idx(), idx_gz(), cifar("cifar10", 1), cifar("cifar100", 2)]
}

fn file(sizes: &[u32]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, sizes.len() as u8];
    out.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    out.extend((0..sizes.iter().product()).map(|i| (i * 7) as u8));
    out
}

fn idx_seeds() -> Vec<Vec<u8>> {
    vec![file(&[3, 4, 5]), file(&[6]), file(&[50, 4, 5])]
}

const WORDS: &[&[u8]] = &[
    &[0, 0, 8, 1],
    &[0, 0, 8, 3],
    &[0, 0, 0, 4],
    &[0, 0, 0, 5],
    &[0x1f, 0x8b, 8, 0],
    &[0xff, 0xff, 0xff, 0xff],
];

/// Both readings of some bytes: as labels, and as images.
fn read(bytes: &[u8], packed: bool) -> [Option<Vec<u8>>; 2] {
    [&[][..], &IMAGE].map(|item| formats::idx(bytes, item, MOST, packed).ok())
}

/// Whether the whole file was read, and as its header declares.
fn is_exact(bytes: &[u8], read: &[Option<Vec<u8>>; 2]) -> Result<bool, String> {
    if read.iter().all(Option::is_some) {
        return Err("one file is read as labels and as images".into());
    }
    for (elements, item) in read.iter().zip([&[][..], &IMAGE]) {
        let Some(elements) = elements else { continue };
        let count = elements.len() / item.iter().product::<usize>();
        let mut expected = vec![0, 0, 8, 1 + item.len() as u8];
        for size in [count].iter().chain(item) {
            expected.extend((*size as u32).to_be_bytes());
        }
        expected.extend(elements);
        if expected != bytes {
            return Err(format!(
                "{} elements were read, which is not what the file holds",
                elements.len()
            ));
        }
        return Ok(true);
    }
    Ok(false)
}

fn verdict(accepted: Result<bool, String>) -> Verdict {
    match accepted {
        Ok(true) => Verdict::Accepted,
        Ok(false) => Verdict::Refused,
        Err(problem) => Verdict::Wrong(problem),
    }
}

fn idx() -> Target {
    Target {
        name: "idx",
        seeds: idx_seeds(),
        per_byte: 4,
        constant: 1 << 14,
        damage: Box::new(|rng, seeds| {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            let other = &seeds[rng.below(seeds.len())];
            damage::bytes(rng, &mut bytes, other, WORDS);
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(|input, _| verdict(is_exact(&input.bytes, &read(&input.bytes, false)))),
    }
}

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("writing to memory succeeds");
    encoder.finish().expect("writing to memory succeeds")
}

/// What an independent unpacking gives, at most so much of it.
fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let reader = flate2::bufread::GzDecoder::new(bytes);
    reader.take(1 << 20).read_to_end(&mut content).ok()?;
    Some(content)
}

fn idx_gz() -> Target {
    let seeds: Vec<Vec<u8>> = idx_seeds().iter().map(|seed| gz(seed)).collect();
    Target {
        name: "idx-gz",
        seeds,
        // What is unpacked may be a thousand times as large, up to the announced size and the largest allowed.
        per_byte: 8,
        constant: 1 << 17,
        damage: Box::new(|rng, seeds| {
            let which = rng.below(seeds.len());
            if rng.one_in(2) {
                let mut bytes = seeds[which].clone();
                damage::bytes(rng, &mut bytes, &[], WORDS);
                return Input {
                    bytes,
                    demand: Demand::AsSeed(which),
                };
            }
            let mut content = unpacked(&seeds[which]).expect("a seed");
            let other = file(&[7, 4, 5]);
            damage::bytes(rng, &mut content, &other, WORDS);
            if rng.one_in(50) {
                // A bomb: much of nothing behind a header that announces it.
                content = file(&[0x00ff_ffff]);
                content.truncate(8);
                content.resize(1 << 20, 0);
            }
            let mut bytes = gz(&content);
            if rng.one_in(8) {
                bytes.extend(gz(&content));
            }
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(|input, seeds| {
            let found = read(&input.bytes, true);
            if found.iter().all(Option::is_none) {
                return Verdict::Refused;
            }
            if let Demand::AsSeed(which) = input.demand
                && found != read(&seeds[which], true)
            {
                return Verdict::Wrong("damage under a checksum was read as other content".into());
            }
            match unpacked(&input.bytes) {
                Some(content) => verdict(is_exact(&content, &found)),
                None => Verdict::Wrong("what cannot be unpacked was read".into()),
            }
        }),
    }
}

fn cifar(name: &'static str, label_bytes: usize) -> Target {
    let record = label_bytes + 3072;
    let pixels = |count: usize| (0..count * record).map(|i| (i % 9) as u8).collect::<Vec<u8>>();
    Target {
        name,
        seeds: vec![pixels(1), pixels(3)],
        per_byte: 6,
        constant: 1 << 12,
        damage: Box::new(move |rng, seeds| {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            match rng.below(3) {
                // Whole records more or less.
                0 => bytes.truncate(record * rng.below(4)),
                1 => bytes.extend(seeds[rng.below(seeds.len())].clone()),
                _ => {}
            }
            if rng.one_in(2) {
                damage::bytes(rng, &mut bytes, &seeds[0], &[]);
            }
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(move |input, _| {
            let whole = !input.bytes.is_empty() && input.bytes.len() % record == 0;
            match formats::cifar(&input.bytes, label_bytes) {
                Err(_) if whole => Verdict::Wrong("whole records were refused".into()),
                Err(_) => Verdict::Refused,
                Ok((labels, pixels)) => {
                    let records = labels.chunks(label_bytes).zip(pixels.chunks(3072));
                    let again: Vec<u8> = records.flat_map(|(label, image)| [label, image].concat()).collect();
                    if whole && again == input.bytes {
                        Verdict::Accepted
                    } else {
                        Verdict::Wrong("the records differ from the file".into())
                    }
                }
            }
        }),
    }
}
