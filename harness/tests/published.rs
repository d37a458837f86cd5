//! A published number is shown beside a row of its own protocol alone, unless its reader asks for more.

mod common;

use std::path::Path;

use common::Place;

const MATRIX: &str = "\
name: foreign
dataset: { name: mnist, verify: false }
threat: { norm: linf, epsilon: 0.3 }
networks: [tiny-cnn]
recipe: { epochs: 1, batch: 32, optimizer: { name: sgd, rate: 0.05 }, schedule: { name: constant } }
defenses: [{ name: standard, attack: { steps: 2 } }]
attacks: [{ name: pgd, steps: 1, start: none, label: PGD-20 }]
checkpoints: [last]
tables: [white-box]
";

/// Images of the right shape that are not MNIST.
fn write_images(folder: &Path, name: &str, count: u32) {
    let head = |magic: u32, sizes: &[u32]| -> Vec<u8> {
        let numbers = [magic].into_iter().chain(sizes.iter().copied());
        numbers.flat_map(u32::to_be_bytes).collect()
    };
    let mut images = head(0x803, &[count, 28, 28]);
    images.extend((0..count * 784).map(|i| (i * 37 % 251) as u8));
    let mut labels = head(0x801, &[count]);
    labels.extend((0..count).map(|i| (i % 10) as u8));
    std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
    std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
}

#[test]
fn foreign_rows_have_no_published_number_beside_them() {
    let place = Place::new(MATRIX);
    let data = place.path("mnist");
    std::fs::create_dir_all(&data).unwrap();
    write_images(&data, "train", 64);
    write_images(&data, "t10k", 32);
    let folder = data.display().to_string();
    let table = |arguments: &[&str]| {
        let arguments = [&["m.yaml", "--data-dir", &folder], arguments].concat();
        place.run(&arguments);
        std::fs::read_to_string(place.path("runs/foreign/tables/white-box.md")).unwrap()
    };
    let matching = table(&[]);
    assert!(!matching.contains("94.62"), "{matching}");
    assert!(matching.contains("2 published numbers are not shown"), "{matching}");

    let text = MATRIX.replace("[white-box]", "[{ name: white-box, published: any }]");
    std::fs::write(place.path("m.yaml"), text).unwrap();
    let any = table(&[]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(any.contains("94.62≠"), "{any}");
    for difference in [
        "mnist is not verified to be the published data set",
        "32 of 10000 test images",
        "start none, not uniform; steps 1, not 20",
    ] {
        assert!(any.contains(difference), "{difference}: {any}");
    }
}
