//! Hand-written malicious files, and valid files with bytes changed at random, must do no harm.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use random::Stream;

use super::{Checkpoint, Format};
use crate::Network;

fn good_files() -> Vec<PathBuf> {
    let listing = std::fs::read_dir(reference::vectors().join("checkpoints")).unwrap();
    let mut files: Vec<_> = listing.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        let name = file.file_name().unwrap().to_string_lossy();
        name.ends_with(".pt") && !name.starts_with("bad_")
    });
    files.sort();
    files
}

/// A zip file of stored entries, as `torch.save` writes it.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let start = file.len() as u32;
        let mut fields = vec![0; 8];
        fields[2..4].copy_from_slice(&0x0808u16.to_le_bytes());
        fields.extend([0; 2]);
        fields.extend(crc32fast::hash(content).to_le_bytes());
        fields.extend((content.len() as u32).to_le_bytes());
        fields.extend((content.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&fields[..8]);
        file.extend(&fields[8..]);
        file.extend([0; 2]);
        file.extend(name.as_bytes());
        file.extend(*content);
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&fields);
        directory.extend([0; 12]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, size) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend(size.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}

/// `{'w': tensor}` of two f32 numbers, as a pickle whose parts can be replaced.
const PICKLE: &[u8] = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage\
ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.";

fn replaced(from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = PICKLE
        .windows(from.len())
        .position(|window| window == from)
        .expect("a part of the pickle");
    [&PICKLE[..at], to, &PICKLE[at + from.len()..]].concat()
}

fn numbers() -> Vec<u8> {
    [1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn file(pickle: &[u8]) -> Vec<u8> {
    zip(&[
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/data/0", &numbers()),
    ])
}

fn values(checkpoint: &Checkpoint) -> BTreeMap<String, (Vec<usize>, Vec<u64>)> {
    let entries = checkpoint.tensors.iter().map(|(name, tensor)| {
        let bits = reference::doubles(tensor).into_iter().map(f64::to_bits).collect();
        (name.clone(), (tensor.dims().to_vec(), bits))
    });
    entries.collect()
}

#[track_caller]
fn refused(bytes: &[u8], part: &str) {
    let message = Checkpoint::parse(bytes).unwrap_err();
    assert!(message.contains(part), "`{part}` is not in: {message}");
}

#[test]
fn the_file_that_the_others_are_made_of_reads() {
    let checkpoint = Checkpoint::parse(&file(PICKLE)).unwrap();
    assert_eq!(checkpoint.tensors["w"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
    // A parameter instead of a tensor, as a list of parameters has it.
    let start = b"ctorch._utils\n_rebuild_parameter\n(ctorch._utils\n_rebuild_tensor_v2\n";
    let pickle = replaced(b"ctorch._utils\n_rebuild_tensor_v2\n", start);
    let pickle = [&pickle[..pickle.len() - 2], b"\x88ccollections\nOrderedDict\n)RtRs."].concat();
    let checkpoint = Checkpoint::parse(&file(&pickle)).unwrap();
    assert_eq!(checkpoint.tensors["w"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
}

#[test]
fn code_is_refused_by_its_name() {
    for (pickle, name) in [
        (&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], "`os.system`"),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x01x\x85R.",
            "`builtins.eval`",
        ),
        (b"(iposix\nsystem\n.", "`posix.system`"),
        (
            b"\x80\x02cnumpy.core.multiarray\nscalar\n.",
            "`numpy.core.multiarray.scalar`",
        ),
        (
            b"\x80\x02ctorchvision.models\nResNet\n)\x81}b.",
            "`torchvision.models.ResNet`",
        ),
        (b"\x80\x02ctorch\nload\n.", "`torch.load`"),
        (b"\x80\x02c__torch__.models\nNet\n.", "`__torch__.models.Net`"),
    ] {
        refused(&file(pickle), name);
        refused(&file(pickle), "nothing of a pickle is executed");
    }
    // Beside a good dictionary as well.
    refused(
        &file(&replaced(b"s.", b"scos\nsystem\nX\x02\x00\x00\x00ls\x85R0.")),
        "`os.system`",
    );
    let shown = Checkpoint::parse(&file(b"c\x1b[31m\nred\n.")).unwrap_err();
    assert!(!shown.contains('\x1b'), "a file writes to the terminal: {shown:?}");
}

#[test]
fn tensors_stay_inside_their_storages() {
    let shape: &[u8] = b"K\x00K\x02\x85K\x01\x85";
    refused(
        &file(&replaced(shape, b"K\x01K\x02\x85K\x01\x85")),
        "lead out of its storage",
    );
    refused(
        &file(&replaced(shape, b"K\x00K\x02\x85K\x02\x85")),
        "lead out of its storage",
    );
    refused(
        &file(&replaced(shape, b"J\xff\xff\xff\xffK\x02\x85K\x01\x85")),
        "-1 is not a size",
    );
    refused(
        &file(&replaced(shape, b"K\x00K\x02\x85)")),
        "1 dimensions with 0 strides",
    );
    // A billion times the same number, and a product beyond 64 bits.
    refused(
        &file(&replaced(shape, b"K\x00J\x00\x00\x00\x40\x85K\x00\x85")),
        "needs more than the 2 numbers",
    );
    let huge = b"K\x00(J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7ft(K\x00K\x00K\x00t";
    refused(&file(&replaced(shape, huge)), "needs more than the 2 numbers");
    refused(&file(&replaced(b"cpuK\x02", b"cpuK\x03")), "8 bytes instead of 3 × 4");
    refused(
        &file(&replaced(b"FloatStorage", b"DoubleStorage")),
        "8 bytes instead of 2 × 8",
    );
    refused(
        &file(&replaced(b"FloatStorage", b"ComplexFloatStorage")),
        "`torch.ComplexFloatStorage`",
    );
    refused(
        &file(&replaced(b"X\x01\x00\x00\x000", b"X\x0d\x00\x00\x00../etc/passwd")),
        "`../etc/passwd` is not in the file",
    );
}

#[test]
fn strides_beyond_any_memory_are_refused() {
    let shape: &[u8] = b"K\x00K\x02\x85K\x01\x85";
    // 2^64 − 1 as an offset, and as the stride of an axis of one element, whose stride is otherwise free.
    let most = b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00";
    let stride = [b"K\x01K\x01K\x02\x86", &most[..], b"K\x01\x86"].concat();
    refused(&file(&replaced(shape, &stride)), "lead beyond any memory");
    let offset = [&most[..], b"K\x02\x85K\x01\x85"].concat();
    refused(&file(&replaced(shape, &offset)), "lead beyond any memory");
    refused(
        &file(&replaced(b"cpuK\x02", &[b"cpu", &most[..]].concat())),
        "8 bytes instead of",
    );
    let free = b"K\x00K\x01K\x02\x86M\xe8\x03K\x01\x86";
    let tensor = &Checkpoint::parse(&file(&replaced(shape, free))).unwrap().tensors["w"];
    assert_eq!(tensor.to_vec2::<f32>().unwrap(), [[1.5, -2.0]]);
}

#[test]
fn what_is_beside_the_weights_is_passed_over_unmade() {
    let objects: &[(&str, &[u8])] = &[
        // numpy.float64(0.5), as NumPy 2 and Python 3 write it.
        (
            "scalar",
            b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x89\x88\x87R(K\x03X\x01\x00\x00\x00<\
NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbc_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R\x86R",
        ),
        // Bytes as Python 2 wrote them.
        (
            "scalar of Python 2",
            b"cnumpy.core.multiarray\nscalar\n(U\x02\xff\xfetR",
        ),
        (
            "array",
            b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01)tb",
        ),
        (
            "Namespace",
            b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrG\x3f\xb9\x99\x99\x99\x99\x99\x9asb",
        ),
        ("path", b"cpathlib\nPosixPath\nX\x01\x00\x00\x00/\x85R"),
        ("set", b"c__builtin__\nset\n](K\x01K\x02e\x85R"),
        ("Counter", b"ccollections\nCounter\n}X\x01\x00\x00\x00aK\x01s\x85R"),
        (
            "defaultdict",
            b"ccollections\ndefaultdict\nc__builtin__\nlist\n\x85RX\x01\x00\x00\x00aK\x01s",
        ),
        ("deque", b"ccollections\ndeque\n)R(K\x01e"),
        ("dtype", b"ctorch\nfloat32\n"),
        ("device", b"ctorch\ndevice\nX\x03\x00\x00\x00cpu\x85R"),
        (
            "enumeration",
            b"c__builtin__\ngetattr\nctorchvision.transforms\nInterpolationMode\nX\x01\x00\x00\x00A\x86R",
        ),
        (
            "class of its own",
            b"(c__main__\nMeter\nK\x01o}X\x03\x00\x00\x00avgK\x01sb",
        ),
        ("old class", b"(K\x01i__main__\nMeter\n"),
        ("arguments by name", b"c__main__\nMeter\n)}\x92"),
        ("byte array", b"\x96\x01\x00\x00\x00\x00\x00\x00\x00a"),
    ];
    for (what, object) in objects {
        let inner = &PICKLE[2..PICKLE.len() - 1];
        let wrapped = [
            b"\x80\x02}(X\x05\x00\x00\x00model",
            inner,
            b"X\x06\x00\x00\x00beside",
            *object,
            b"u.",
        ]
        .concat();
        let checkpoint = Checkpoint::parse(&file(&wrapped)).unwrap_or_else(|problem| panic!("{what}: {problem}"));
        assert_eq!(checkpoint.tensors["w"].to_vec1::<f32>().unwrap(), [1.5, -2.0], "{what}");
        // In the place of a tensor, nothing stands for it.
        let instead = [b"\x80\x02}X\x01\x00\x00\x00w", *object, b"s."].concat();
        refused(&file(&instead), "no dictionary of tensors (`w`");
    }
}

#[test]
fn tensors_with_classes_and_attributes_are_tensors() {
    let tensor = &PICKLE[3 + 6..PICKLE.len() - 2];
    let call = |module: &str, name: &str| format!("c{module}\n{name}\n").into_bytes();
    let attributes = b"}X\x03\x00\x00\x00tagK\x01s";
    let parts = PICKLE.strip_prefix(b"\x80\x02}X\x01\x00\x00\x00w").unwrap();
    let parts = parts.strip_prefix(b"ctorch._utils\n_rebuild_tensor_v2\n").unwrap();
    let arguments = parts.strip_suffix(b"Rs.").unwrap();
    for value in [
        [
            &call("torch._utils", "_rebuild_parameter_with_state"),
            &b"("[..],
            tensor,
            b"\x88)",
            attributes,
            b"tR",
        ]
        .concat(),
        [&call("torch.nn.parameter", "Parameter"), tensor, b"\x85\x81"].concat(),
        [
            &call("torch._tensor", "_rebuild_from_type_v2"),
            &b"("[..],
            &call("torch._utils", "_rebuild_tensor_v2"),
            &call("torch", "Tensor"),
            arguments,
            attributes,
            b"tR",
        ]
        .concat(),
    ] {
        let pickle = [b"\x80\x02}X\x01\x00\x00\x00w", &value[..], b"s."].concat();
        let checkpoint = Checkpoint::parse(&file(&pickle)).unwrap();
        assert_eq!(checkpoint.tensors["w"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
    }
    // The state of a tensor could replace its numbers.
    let pickle = [b"\x80\x02}X\x01\x00\x00\x00w", tensor, b"}bs."].concat();
    refused(&file(&pickle), "attributes of something that is not a dictionary");
}

/// An array as NumPy writes it.
fn npy(header: &str, numbers: &[u8]) -> Vec<u8> {
    [
        b"\x93NUMPY\x01\x00",
        &(header.len() as u16).to_le_bytes()[..],
        header.as_bytes(),
        numbers,
    ]
    .concat()
}

#[test]
fn arrays_of_numpy_are_read() {
    let six: Vec<u8> = (1..=6).flat_map(|value| (value as f32).to_le_bytes()).collect();
    let rows = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n", &six);
    let columns = npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", &six);
    let labels = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n", &[3, 255]);
    let arrays = zip(&[("x.npy", &rows), ("t.npy", &columns), ("y.npy", &labels)]);
    let read = Checkpoint::parse(&arrays).unwrap();
    assert_eq!(read.format, Format::Npz);
    assert_eq!(
        read.tensors["x"].to_vec2::<f32>().unwrap(),
        [[1., 2., 3.], [4., 5., 6.]]
    );
    assert_eq!(
        read.tensors["t"].to_vec2::<f32>().unwrap(),
        [[1., 3., 5.], [2., 4., 6.]]
    );
    assert_eq!(read.tensors["y"].to_vec1::<i64>().unwrap(), [3, 255]);
    for (header, part) in [
        (
            "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
            "it holds `|O`",
        ),
        (
            "{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }",
            "it holds `>f4`",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }",
            "needs more than the 6 numbers",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }",
            "does not take its 6 numbers",
        ),
        (
            "{'descr': '<f4', 'shape': (18446744073709551615, 3), }",
            "does not fit into memory",
        ),
        ("{'descr': '<f4', 'shape': (x,), }", "a size is no number"),
        ("{}", "no type of number"),
    ] {
        refused(&zip(&[("x.npy", &npy(header, &six))]), part);
    }
    refused(&zip(&[("x.npy", b"\x93NUMPY\x01\x00\xff\xff{")]), "cut short");
    refused(&zip(&[("x.npy", b"\x80\x04.")]), "not an array of NumPy");
}

#[test]
fn torchscript_is_named() {
    let numbers = numbers();
    let script = zip(&[
        ("a/data.pkl", b"\x80\x02c__torch__.lib\nTiny\n)\x81}b."),
        ("a/code/__torch__/lib.py", b"class Tiny"),
        ("a/constants.pkl", b"\x80\x02)."),
        ("a/data/0", &numbers),
    ]);
    refused(&script, "this is TorchScript");
    refused(&script, "model.state_dict()");
}

#[test]
fn little_files_do_not_ask_for_much_memory() {
    // Thousands of names for one storage of a thousand numbers.
    let mut pickle = b"\x80\x02}".to_vec();
    let one = replaced(b"cpuK\x02tQK\x00K\x02", b"cpuM\xe8\x03tQK\x00M\xe8\x03");
    // The value of `w`, remembered.
    pickle.extend(&one[3..one.len() - 2]);
    pickle.extend(b"q\x01s");
    for name in 0..20_000u32 {
        pickle.extend(b"U\x05");
        pickle.extend(format!("{name:05}").bytes());
        pickle.extend(b"h\x01s");
    }
    pickle.push(b'.');
    let storage = vec![0; 4000];
    refused(
        &zip(&[("a/data.pkl", &pickle), ("a/data/0", &storage)]),
        "much more memory than the file is long",
    );

    // One long list of pairs, made an ordered dictionary again and again.
    let mut pickle = b"\x80\x02](".to_vec();
    pickle.extend(b"NN\x86".repeat(1000));
    pickle.extend(b"eq\x01\x85q\x02");
    pickle.extend(b"ccollections\nOrderedDict\nh\x02R".repeat(1000));
    pickle.push(b'.');
    refused(&file(&pickle), "copies more than it holds");

    // Doubling by reference: each list holds the one before twice.
    let mut pickle = b"\x80\x02]".to_vec();
    for _ in 0..10_000 {
        pickle.extend(b"q\x01]h\x01ah\x01a");
    }
    pickle.push(b'.');
    refused(&file(&pickle), "holds no dictionary");
    // A dictionary in itself.
    refused(&file(b"}q\x01X\x05\x00\x00\x00modelh\x01s."), "nested too deeply");
}

#[test]
fn strange_zip_files_are_refused() {
    let numbers = numbers();
    refused(&zip(&[("a/data/0", &numbers)]), "no `NAME/data.pkl`");
    refused(
        &zip(&[("a/data.pkl", PICKLE), ("b/data.pkl", PICKLE)]),
        "several pickles",
    );
    refused(
        &zip(&[("a/data.pkl", PICKLE), ("a/data/0", &numbers), ("a/data/0", &numbers)]),
        "twice",
    );
    refused(
        &zip(&[("a/data.pkl", PICKLE), ("a/byteorder", b"big"), ("a/data/0", &numbers)]),
        "`big`",
    );
    refused(&zip(&[("a/data.pkl", PICKLE)]), "`0` is not in the file");
    refused(&file(&[PICKLE, b"more"].concat()), "goes on after its end");
    // Names that would lead elsewhere, if a name were a path.
    refused(
        &zip(&[("../../a/data.pkl", PICKLE), ("../../a/data/0", &numbers)]),
        "no `NAME/data.pkl`",
    );
    let mut compressed = file(PICKLE);
    let directory = compressed
        .windows(4)
        .position(|window| window == b"PK\x01\x02")
        .unwrap();
    compressed[directory + 10] = 8;
    refused(&compressed, "is compressed");
    let mut elsewhere = file(PICKLE);
    let last = elsewhere
        .windows(4)
        .rposition(|window| window == b"PK\x01\x02")
        .unwrap();
    elsewhere[last + 42..last + 46].copy_from_slice(&[0; 4]);
    refused(&elsewhere, "`a/data/0` is not complete");
    refused(b"\x80\x04}.", "plain pickle");
    refused(b"PK", "truncated");
}

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
    Checkpoint {
        format: Format::Zip,
        within: Vec::new(),
        prefix: String::new(),
        tensors: network.state().unwrap(),
        beside: BTreeMap::new(),
        apart: Vec::new(),
        other: Vec::new(),
        metadata: BTreeMap::new(),
    }
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

/// What happens to a file's bytes.
#[derive(Debug, Clone)]
enum Change {
    Truncate(prop::sample::Index),
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Change::Truncate),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<prop::sample::Index>(), 1usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
    ]
}

fn apply(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        if bytes.is_empty() {
            return;
        }
        match change {
            Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            Change::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Change::Remove(at, length) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Change::Insert(at, new) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, new.iter().copied());
            }
        }
    }
}

/// The pickle of a zip file, which begins right after the first header.
fn pickle_of(bytes: &[u8]) -> &[u8] {
    let length = u32::from_le_bytes(
        bytes[..]
            .windows(4)
            .position(|window| window == b"PK\x01\x02")
            .map(|at| bytes[at + 24..at + 28].try_into().unwrap())
            .unwrap(),
    );
    let start = bytes
        .windows(3)
        .position(|window| window == b"\x80\x02}" || window == b"\x80\x02c")
        .unwrap();
    &bytes[start..start + length as usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// A changed zip file is refused, or holds what it held: its sums cover every content.
    #[test]
    fn changed_files_are_refused_or_unchanged(which: prop::sample::Index, changes in prop::collection::vec(change(), 1..4)) {
        let files = good_files();
        let bytes = std::fs::read(which.get(&files)).unwrap();
        let mut changed = bytes.clone();
        apply(&mut changed, &changes);
        if let Ok(found) = Checkpoint::parse(&changed) {
            // The old format has no sums; of it only the absence of panics is asked.
            if found.format == Format::Zip {
                prop_assert_eq!(values(&found), values(&Checkpoint::parse(&bytes).unwrap()));
            }
        }
    }

    /// A changed pickle with right sums around it: no panic, no tensor larger than its storage.
    #[test]
    fn changed_pickles_do_no_harm(which: prop::sample::Index, changes in prop::collection::vec(change(), 1..6)) {
        let files: Vec<_> = good_files().into_iter().filter(|file| std::fs::read(file).unwrap().starts_with(b"PK")).collect();
        let bytes = std::fs::read(which.get(&files)).unwrap();
        let mut pickle = pickle_of(&bytes).to_vec();
        apply(&mut pickle, &changes);
        let storages: Vec<(String, Vec<u8>)> = (0..123).map(|key| (format!("a/data/{key}"), vec![7; 108])).collect();
        let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", &pickle)];
        entries.extend(storages.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
        if let Ok(found) = Checkpoint::parse(&zip(&entries)) {
            prop_assert!(found.tensors.values().all(|tensor| tensor.elem_count() <= 108));
        }
    }

    /// A small pickle, changed: often still sound, so that what is read from it counts.
    #[test]
    fn changed_small_pickles_do_no_harm(changes in prop::collection::vec(change(), 1..4)) {
        let mut pickle = PICKLE.to_vec();
        apply(&mut pickle, &changes);
        if let Ok(found) = Checkpoint::parse(&file(&pickle)) {
            prop_assert!(found.tensors.values().all(|tensor| tensor.elem_count() <= 8));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), start in 0usize..4) {
        let starts: [&[u8]; 4] = [b"", b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x10\0\0\0\0\0\0\0{"];
        let _ = Checkpoint::parse(&[starts[start], &bytes].concat());
    }
}
