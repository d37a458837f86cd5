//! Reads reference vectors: what the authors' code computed on recorded inputs.
//!
//! Only tests and `gpu-check` use this crate. They are in `reference/vectors`; the environment variable
//! `RAMPART_REFERENCE_DIR` points every test at another folder of the same layout. The README
//! beside this crate defines each kind of case.

pub mod networks;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde_json::Value;

/// One recorded case.
#[derive(Debug)]
pub struct Case {
    /// Where it was read.
    pub path: PathBuf,
    /// Its metadata; `kind` says what it is a case of.
    pub meta: Value,
    tensors: BTreeMap<String, Tensor>,
}

impl Case {
    /// Reads one file. Panics, naming the file, if it is not a case.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) =
            safetensors::SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = header.metadata().as_ref().and_then(|entries| entries.get("case"));
        let text = text.unwrap_or_else(|| panic!("{}: no `case` in the metadata", path.display()));
        let meta = serde_json::from_str(text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self {
            path: path.to_path_buf(),
            meta,
            tensors: tensors.into_iter().collect(),
        }
    }

    /// `kind` of the metadata.
    pub fn kind(&self) -> &str {
        self.meta["kind"]
            .as_str()
            .unwrap_or_else(|| panic!("{}: no kind", self.path.display()))
    }

    /// A hyper-parameter.
    #[track_caller]
    pub fn hyper(&self, name: &str) -> f64 {
        self.meta["hyper"][name]
            .as_f64()
            .unwrap_or_else(|| panic!("{}: no hyper.{name}", self.path.display()))
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// An input as it was recorded.
    #[track_caller]
    pub fn raw(&self, name: &str) -> &Tensor {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("{}: no tensor {name}", self.path.display()))
    }

    /// An input in the precision of the test.
    #[track_caller]
    pub fn input(&self, name: &str, dtype: DType) -> Tensor {
        self.raw(name).to_dtype(dtype).unwrap()
    }

    /// Class indices or other integers, as u32.
    #[track_caller]
    pub fn indices(&self, name: &str) -> Tensor {
        self.raw(name).to_dtype(DType::U32).unwrap()
    }

    /// A result: the float64 run where there is one, else the float32 run.
    #[track_caller]
    pub fn result(&self, name: &str) -> Tensor {
        let double = format!("{name}.f64");
        let name = if self.has(&double) {
            double
        } else {
            format!("{name}.f32")
        };
        self.raw(&name).to_dtype(DType::F64).unwrap()
    }

    /// The case of the network that this one names under `net`, in the same folder.
    pub fn network(&self) -> Self {
        let name = self.meta["net"]
            .as_str()
            .unwrap_or_else(|| panic!("{}: no net", self.path.display()));
        Self::read(&self.path.with_file_name(name))
    }
}

/// The variable that names another folder of vectors.
const FOLDER: &str = "RAMPART_REFERENCE_DIR";

/// The folder of the vectors that the reference tests run on.
pub fn root() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(vectors, PathBuf::from)
}

/// The vectors of this crate, whatever the environment says: fixtures of other tests.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// Why a case cannot be run: it describes something that no code here can build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBuilt(pub String);

impl Case {
    /// The case is of a kind that no test knows.
    pub fn unknown_kind(&self) -> NotBuilt {
        NotBuilt(format!("unknown kind `{}`", self.kind()))
    }
}

/// Runs `check` on every case in `folder` (such as `losses`) and prints how many of each kind passed.
///
/// Kinds that another test of this folder runs are passed over (`elsewhere`). A case that cannot be built is printed
/// with its reason. In the vectors of this crate every case must be built. A folder without cases fails.
pub fn run(folder: &str, elsewhere: &[&str], mut check: impl FnMut(&Case) -> Result<(), NotBuilt>) {
    let path = root().join(folder);
    let listing = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut files: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    let mut passed = BTreeMap::new();
    let mut not_built = Vec::new();
    for file in files {
        let case = Case::read(&file);
        let kind = case.kind().to_string();
        if elsewhere.contains(&kind.as_str()) {
            continue;
        }
        match check(&case) {
            Ok(()) => *passed.entry(kind).or_insert(0) += 1,
            Err(NotBuilt(reason)) => not_built.push(format!("{}: {reason}", file.display())),
        }
    }
    assert!(
        !passed.is_empty() || !not_built.is_empty(),
        "{}: no case ran",
        path.display()
    );
    // Straight to the handle: the test runner captures what goes through `println!`.
    let mut out = std::io::stdout().lock();
    for (kind, count) in passed {
        writeln!(out, "reference {folder}: {count} cases of {kind} passed").unwrap();
    }
    if !not_built.is_empty() {
        writeln!(out, "reference {folder}: {} cases not built", not_built.len()).unwrap();
    }
    for case in &not_built {
        writeln!(out, "reference {folder}: not built: {case}").unwrap();
    }
    assert!(
        not_built.is_empty() || std::env::var_os(FOLDER).is_some(),
        "{}: cases that are not built: {not_built:?}",
        path.display()
    );
}

/// Fails unless `|actual − expected| ≤ absolute + relative·|expected|` everywhere.
#[track_caller]
pub fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, absolute: f64, relative: f64) {
    assert_eq!(actual.dims(), expected.dims(), "{what}: shape");
    let (actual, expected) = (doubles(actual), doubles(expected));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let allowed = absolute + relative * e.abs();
        assert!(
            (a - e).abs() <= allowed,
            "{what}[{i}]: {a} instead of {e}; off by {:e}, allowed {allowed:e}",
            a - e
        );
    }
}

/// Fails unless every difference is within `tolerance` of the largest |value| expected.
#[track_caller]
pub fn assert_close_to_largest(what: &str, actual: &Tensor, expected: &Tensor, tolerance: f64) {
    let largest = doubles(expected)
        .into_iter()
        .fold(0.0, |largest: f64, value| largest.max(value.abs()));
    assert_close(what, actual, expected, tolerance * largest, 0.0);
}

/// All values, flattened, as doubles.
pub fn doubles(tensor: &Tensor) -> Vec<f64> {
    tensor
        .to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}
