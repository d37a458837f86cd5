#!/usr/bin/env bash
# Installs what `--features cuda` needs on a machine without CUDA into a folder of your choice, from
# NVIDIA's wheels on PyPI (2 GB), and prints the environment to build with:
#
#   tools/cuda-toolchain.sh FOLDER > cuda.env && . ./cuda.env && cargo build -p harness --features cuda
#
# The program does not link CUDA's libraries but opens each one when it first calls it. So it starts on a
# machine without them, and reports what is missing. To make this work, the folder has, instead of each
# library, an archive with a jump for every function that the cudarc crate declares.
set -euo pipefail

folder=${1:?usage: tools/cuda-toolchain.sh FOLDER}
test "$(uname -sm)" = "Linux x86_64" || { echo "only Linux on x86-64 is supported; use a system CUDA (docs/cuda.md)" >&2; exit 2; }
for program in python3 gcc ar cargo; do
    command -v "$program" >/dev/null || { echo "$program is missing; install it first" >&2; exit 2; }
done
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

venv=$folder/venv
test -x "$venv/bin/pip" || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85 \
    nvidia-cuda-runtime==13.0.96 nvidia-cuda-nvrtc==13.0.88 nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35 \
    nvidia-cudnn-cu13 >&2
wheels=$(echo "$venv"/lib/python3*/site-packages/nvidia)

# The sources that declare the functions; the version is the one in Cargo.lock.
cargo fetch --quiet
version=$(sed -n '/^name = "cudarc"/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
cudarc=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/cudarc-"$version"/src)

cuda=$folder/cuda
mkdir -p "$cuda/lib" "$folder/jumps"
for part in bin include nvvm; do ln -sfn "$wheels/cu13/$part" "$cuda/$part"; done
ln -sf "$wheels/cu13/lib/libcudart_static.a" "$cuda/lib/libcudart.a"
ln -sfn lib "$cuda/lib64"

# archive LIBRARY MODULE FILE CODE: writes lib$LIBRARY.a with jumps into FILE. If FILE is missing, every
# function returns CODE, an error code of that library.
archive() {
    local library=$1 names=$folder/jumps/$1.names source=$folder/jumps/$1.c
    grep -oE '\bfn (cu|nvrtc)[A-Za-z0-9_]+\(' "$cudarc/$2/sys/mod.rs" | sed 's/^fn //; s/($//' | grep -vx culib | sort -u >"$names"
    {
        printf '#include <dlfcn.h>\n#include <string.h>\n'
        printf 'static const char *const names[] = {\n'
        sed 's/.*/    "&",/' "$names"
        printf '};\n#define LIBRARY "%s"\n#define CODE %s\n' "$3" "$4"
        cat <<'C'
static void *slots[sizeof names / sizeof *names] __attribute__((used));
static long fails(void) { return CODE; }
static long none(void) { return 0; }
static const char *speaks(void) { return LIBRARY " is missing"; }
static int ends(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}
__attribute__((used, noinline)) static void *find(long index) {
    /* Two threads may get here at once; both find the same function. */
    static void *library;
    const char *name = names[index];
    if (!library) library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
    void *function = library ? dlsym(library, name) : 0;
    if (!function) {
        int is_driver = !strncmp(LIBRARY, "libcuda.", 8);
        int is_text = !is_driver && (ends(name, "ErrorString") || ends(name, "StatusName") || ends(name, "StatusString"));
        function = is_text ? (void *)speaks : ends(name, "dnnGetVersion") ? (void *)none : (void *)fails;
    }
    __atomic_store_n(&slots[index], function, __ATOMIC_RELEASE);
    return function;
}
__asm__(
    ".text\n"
    "jump:\n"
    "    leaq slots(%rip), %r10\n"
    "    movq (%r10,%r11,8), %r10\n"
    "    testq %r10, %r10\n"
    "    jz slow\n"
    "    jmp *%r10\n"
    "slow:\n"
    /* Save the arguments of the current call. */
    "    pushq %rbp\n    movq %rsp, %rbp\n"
    "    pushq %rax\n    pushq %rdi\n    pushq %rsi\n    pushq %rdx\n    pushq %rcx\n    pushq %r8\n    pushq %r9\n    pushq %r11\n"
    "    subq $128, %rsp\n"
    "    movups %xmm0, (%rsp)\n    movups %xmm1, 16(%rsp)\n    movups %xmm2, 32(%rsp)\n    movups %xmm3, 48(%rsp)\n"
    "    movups %xmm4, 64(%rsp)\n    movups %xmm5, 80(%rsp)\n    movups %xmm6, 96(%rsp)\n    movups %xmm7, 112(%rsp)\n"
    "    movq %r11, %rdi\n"
    "    call find\n"
    "    movq %rax, %r10\n"
    "    movups (%rsp), %xmm0\n    movups 16(%rsp), %xmm1\n    movups 32(%rsp), %xmm2\n    movups 48(%rsp), %xmm3\n"
    "    movups 64(%rsp), %xmm4\n    movups 80(%rsp), %xmm5\n    movups 96(%rsp), %xmm6\n    movups 112(%rsp), %xmm7\n"
    "    addq $128, %rsp\n"
    "    popq %r11\n    popq %r9\n    popq %r8\n    popq %rcx\n    popq %rdx\n    popq %rsi\n    popq %rdi\n    popq %rax\n"
    "    popq %rbp\n"
    "    jmp *%r10\n"
C
        awk '{ printf "    \".globl %s\\n.type %s, @function\\n%s:\\n    movl $%d, %%r11d\\n    jmp jump\\n\"\n", $1, $1, $1, NR - 1 }' "$names"
        printf ');\n'
    } >"$source"
    gcc -O1 -fPIC -c "$source" -o "$folder/jumps/$library.o"
    rm -f "$cuda/lib/lib$library.a"
    ar rcs "$cuda/lib/lib$library.a" "$folder/jumps/$library.o"
}
archive cuda driver libcuda.so.1 34
archive cublas cublas libcublas.so.13 1
archive cublasLt cublaslt libcublasLt.so.13 1
archive curand curand libcurand.so.10 203
archive nvrtc nvrtc libnvrtc.so.13 11
archive cudnn cudnn libcudnn.so.9 1001

cat <<END
# To build:
export CUDA_HOME='$cuda' CUDA_COMPUTE_CAP="\${CUDA_COMPUTE_CAP:-90}" LIBRARY_PATH='$cuda/lib'"\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export PATH='$cuda/bin':"\$PATH"
# To run where CUDA and cuDNN are not installed (the driver is always the machine's own):
export LD_LIBRARY_PATH='$wheels/cu13/lib:$wheels/cudnn/lib'"\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
END
