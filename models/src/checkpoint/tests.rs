//! Hand-written files: what they hold is read, what they want is not done.

mod changes;
mod names;

use std::collections::BTreeMap;

use testing::zip;

use super::{Checkpoint, Format};

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
        ("{'descr': '<f4', 'shape': (x,), }", "a size is not a number"),
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
