//! Rampart with the methods it ships with.

// Training makes and drops large tensors all the time. The system's allocator returns each to the
// kernel and pays for fresh pages again; this one keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    harness::main(harness::Methods::builtin())
}
