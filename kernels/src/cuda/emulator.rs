//! The machine that tests have: the same kernels, compiled for the processor by g++.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use candle_core::Result;

use super::machine::{Address, Arg, Convolve, Grid, Machine, Pass};
use super::source::{KERNELS, kernel_names};

/// A process that keeps memory and runs kernels.
pub(crate) struct Emulator {
    child: Child,
    pipes: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
}

/// The compiled emulator; none, with a message, where there is no g++.
fn program() -> Option<&'static PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(compile).as_ref()
}

fn compile() -> Option<PathBuf> {
    if Command::new("g++").arg("--version").output().is_err() {
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "no g++ here: CUDA kernels are not compared with the CPU's operations"
        )
        .unwrap();
        return None;
    }
    let list: String = kernel_names().map(|name| format!("K({name})\n")).collect();
    let sources = [
        ("kernels.cu", KERNELS),
        ("kernels.list", &list),
        ("emulator.cpp", include_str!("emulator.cpp")),
    ];
    // Beside the test itself, named by what it is made of, so that it is made once.
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    let tests = std::env::current_exe().unwrap();
    let folder = tests.with_file_name(format!("cuda-emulator-{:016x}", hasher.finish()));
    if folder.exists() {
        return Some(folder.join("emulator"));
    }
    let part = tests.with_file_name(format!("cuda-emulator-{}.part", std::process::id()));
    std::fs::create_dir_all(&part).unwrap();
    for (name, text) in sources {
        std::fs::write(part.join(name), text).unwrap();
    }
    let status = Command::new("g++")
        .args([
            "-std=c++17",
            "-O1",
            "-ffp-contract=off",
            "emulator.cpp",
            "-o",
            "emulator",
        ])
        .current_dir(&part)
        .status()
        .unwrap();
    assert!(status.success(), "the kernels do not compile for the processor");
    if std::fs::rename(&part, &folder).is_err() {
        // Another process was faster.
        std::fs::remove_dir_all(&part).unwrap();
    }
    Some(folder.join("emulator"))
}

impl Emulator {
    pub(crate) fn start() -> Option<Self> {
        let mut child = Command::new(program()?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipes = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        Some(Self {
            child,
            pipes: RefCell::new(pipes),
        })
    }

    /// Sends a command and reads an answer.
    #[track_caller]
    fn ask(&self, command: &[u8], answer: &mut [u8]) {
        let (to, from) = &mut *self.pipes.borrow_mut();
        to.write_all(command).expect("the emulator lives");
        to.flush().unwrap();
        from.read_exact(answer).expect("the emulator lives");
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Address {
        let mut address = [0; 8];
        self.ask(&[b"A".as_slice(), &(bytes as u64).to_le_bytes()].concat(), &mut address);
        u64::from_le_bytes(address)
    }

    pub(crate) fn write(&self, at: Address, bytes: &[u8]) {
        let header = [
            b"W".as_slice(),
            &at.to_le_bytes(),
            &(bytes.len() as u64).to_le_bytes(),
            bytes,
        ]
        .concat();
        self.ask(&header, &mut []);
    }

    pub(crate) fn read(&self, at: Address, bytes: usize) -> Vec<u8> {
        let mut answer = vec![0; bytes];
        let command = [b"R".as_slice(), &at.to_le_bytes(), &(bytes as u64).to_le_bytes()].concat();
        self.ask(&command, &mut answer);
        answer
    }

    /// Room for f32 numbers.
    pub(crate) fn room(&self, len: usize) -> Address {
        self.alloc(4 * len)
    }

    pub(crate) fn floats(&self, values: &[f32]) -> Address {
        let at = self.room(values.len());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(at, &bytes);
        at
    }

    pub(crate) fn words(&self, values: &[u32]) -> Address {
        let at = self.room(values.len());
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(at, &bytes);
        at
    }

    pub(crate) fn get(&self, at: Address, len: usize) -> Vec<f32> {
        let bytes = self.read(at, 4 * len);
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        bytes.chunks_exact(4).map(four).collect()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // It waits for commands, and there will be none.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine for Emulator {
    #[track_caller]
    fn launch(&self, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let mut command = vec![b'L'];
        let mut word = |value: u32| command.extend(value.to_le_bytes());
        word(kernel.len() as u32);
        command.extend(kernel.as_bytes());
        let [x, y] = grid.blocks;
        for value in [x, y, grid.threads, args.len() as u32] {
            command.extend(value.to_le_bytes());
        }
        for arg in args {
            let slot: u64 = match *arg {
                Arg::At(address) => address,
                Arg::U32(value) => u64::from(value),
                Arg::I32(value) => u64::from(value as u32),
                Arg::U64(value) => value,
                Arg::F32(value) => u64::from(value.to_bits()),
                Arg::F64(value) => value.to_bits(),
            };
            command.extend(slot.to_le_bytes());
        }
        self.ask(&command, &mut [0]);
        Ok(())
    }

    #[track_caller]
    fn convolve(&self, convolution: &Convolve, pass: Pass, at: [Address; 3], accumulate: bool) -> Result<()> {
        let g = &convolution.geometry;
        let mut command = vec![b'C'];
        for size in [
            g.batch,
            g.inputs,
            g.height,
            g.width,
            g.outputs,
            g.kernel_height,
            g.kernel_width,
            g.stride,
            g.padding,
            g.out_height,
            g.out_width,
            usize::from(convolution.form.half),
            usize::from(convolution.form.last),
        ] {
            command.extend((size as u32).to_le_bytes());
        }
        let pass = match pass {
            Pass::Forward => 0u32,
            Pass::ToImages => 1,
            Pass::ToWeights => 2,
        };
        command.extend(pass.to_le_bytes());
        for address in at {
            command.extend(address.to_le_bytes());
        }
        command.extend(u32::from(accumulate).to_le_bytes());
        self.ask(&command, &mut [0]);
        Ok(())
    }
}
