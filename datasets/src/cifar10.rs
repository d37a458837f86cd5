//! CIFAR-10: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
//!
//! 60,000 colour images `[3, 32, 32]`. Each record is one label byte, then the pixels.

use crate::entry::{Entry, Family, Member, Remote, Storage};

pub(crate) const ENTRY: Entry = Entry {
    name: "cifar10",
    summary: "animals and vehicles, 32 × 32 colour, 50,000 + 10,000",
    source: "Krizhevsky: Learning Multiple Layers of Features from Tiny Images, 2009",
    licence: "none stated; the author asks to be cited",
    image: [3, 32, 32],
    classes: &[
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ],
    train: 50_000,
    test: 10_000,
    family: Family::Cifar,
    mirrors: &["https://www.cs.toronto.edu/~kriz/"],
    storage: Storage::Cifar {
        archive: Remote {
            name: "cifar-10-binary.tar.gz",
            size: 170_052_171,
            md5: "c32a1d4ab5d03f1284b67883e8d87530",
        },
        folder: "cifar-10-batches-bin",
        // The publisher gives the archive's checksum only. Those of its files are what others who
        // unpacked it have published.
        train: &[
            member("data_batch_1.bin", "5dd7e06a14cb22eb9f671a540d1b7c25"),
            member("data_batch_2.bin", "5ea93a67294ea407fff1d09f752e9692"),
            member("data_batch_3.bin", "942cd6a4bcdd0dd3c604fbe906cb4421"),
            member("data_batch_4.bin", "ae636b3ba5c66a11e91e8cb52e771fcb"),
            member("data_batch_5.bin", "53f37980c15c3d472c316c40844f3f0d"),
        ],
        test: &[member("test_batch.bin", "803d5f7f4d78ea53de84dbe85f74fb6d")],
        labels: &[10],
    },
};

const fn member(name: &'static str, md5: &'static str) -> Member {
    Member {
        name,
        size: 10_000 * (1 + 3072),
        md5: Some(md5),
    }
}
