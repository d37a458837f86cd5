//! Stored results: Parquet behind its seal and with the seal forged, and baselines in CSV.

use crate::damage;
use crate::target::{Demand, Input, Target, Verdict};

pub(super) fn targets() -> Vec<Target> {
    vec![parquet(), forged(), baseline()]
}

fn parquet_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../seeds/results.parquet").to_vec(),
        include_bytes!("../../seeds/outcomes.parquet").to_vec(),
    ]
}

fn parquet() -> Target {
    Target {
        name: "parquet",
        seeds: parquet_seeds(),
        per_byte: 64,
        constant: 1 << 21,
        damage: Box::new(|rng, seeds| {
            let which = rng.below(seeds.len());
            let mut bytes = seeds[which].clone();
            // Every damage is noticed, so that some must be left whole to see that anything is read at all.
            if !rng.one_in(64) {
                damage::bytes(rng, &mut bytes, &[], &[b"PAR1", b"checksum"]);
            }
            Input {
                bytes,
                demand: Demand::AsSeed(which),
            }
        }),
        check: Box::new(|input, seeds| match results::parse_texts(input.bytes.clone()) {
            Err(_) => Verdict::Refused,
            Ok(rows) => match input.demand {
                Demand::AsSeed(which) if results::parse_texts(seeds[which].clone()) != Ok(rows) => {
                    Verdict::Wrong("damage under a checksum was read as other content".into())
                }
                _ => Verdict::Accepted,
            },
        }),
    }
}

/// A file with a recomputed seal. Its header may claim anything.
fn forged() -> Target {
    Target {
        name: "parquet-forged",
        seeds: parquet_seeds(),
        per_byte: 1 << 15,
        constant: 1 << 24,
        damage: Box::new(|rng, seeds| {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            let tail = bytes.len().saturating_sub(2600);
            let mut footer = bytes.split_off(if rng.one_in(4) { 0 } else { tail });
            let keep = footer.split_off(footer.len() - 8);
            let other = &seeds[rng.below(seeds.len())];
            damage::bytes(rng, &mut footer, other, &[]);
            bytes.extend(footer);
            bytes.extend(keep);
            results::reseal(&mut bytes);
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(|input, _| match results::parse_texts(input.bytes.clone()) {
            Err(_) => Verdict::Refused,
            Ok(_) => {
                let _ = results::parse_rows(input.bytes.clone());
                Verdict::Accepted
            }
        }),
    }
}

const CSV: &str = "\
dataset,network,defense,recipe,checkpoint,kind,source,attack,epsilon,seed,n,n_correct,status,error,defense_version,attack_version
digits,tiny-cnn,ALP,shared,last,natural,,Natural,,0,500,450,done,,1,1
digits,tiny-cnn,ALP,shared,last,white-box,,PGD-20,0.2,0,500,290,done,,1,1
digits,tiny-cnn,ALP,shared,last,white-box,,PGD-20,0.2,1,500,,failed,\"training diverged: \"\"NaN\"\"\nat step 3\",1,1
digits,tiny-cnn,MART,shared,last,transfer,Natural / tiny-cnn,\"CW, 20\",0.2,0,500,1,done,,2,1
";

fn baseline() -> Target {
    Target {
        name: "baseline",
        seeds: vec![CSV.as_bytes().to_vec(), CSV.replace('\n', "\r\n").into_bytes()],
        per_byte: 400,
        constant: 1 << 15,
        damage: Box::new(|rng, seeds| {
            let mut bytes = seeds[rng.below(seeds.len())].clone();
            let other = &seeds[rng.below(seeds.len())];
            let words: &[&[u8]] = &[
                b",",
                b"\"",
                b"\n",
                b"\r",
                b"\"\"",
                b"\xef\xbb\xbf",
                b"18446744073709551616",
                b"-1",
                b"<<<<<<< ",
                b"failed",
                b"done",
            ];
            damage::bytes(rng, &mut bytes, other, words);
            Input {
                bytes,
                demand: Demand::None,
            }
        }),
        check: Box::new(|input, _| {
            let Ok(text) = std::str::from_utf8(&input.bytes) else {
                return Verdict::Refused;
            };
            match harness::fuzzing::baseline(text) {
                Err(_) => Verdict::Refused,
                Ok(written) if harness::fuzzing::baseline(&written).as_ref() == Ok(&written) => Verdict::Accepted,
                Ok(_) => Verdict::Wrong("a baseline is not read as it was written".into()),
            }
        }),
    }
}
