"""Times our workloads against PyTorch's and prints ratios.

Two workers, one for each side, hold the same network (benches/src/formula.rs) and the same images. Before anything
is timed, they must agree on the logits, and on the loss after the first steps. Then they take turns, one short burst
each, so that other load on the machine affects both. A ratio is computed within each round, and the result is the
median of the rounds' ratios. Spread is (largest - smallest) / median of those ratios.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

WORKLOADS = ["forward", "attack-step", "train-step", "at-step", "trades-step", "mart-step"]
WHOLE = {"at-step", "trades-step", "mart-step"}
BATCHES = {"small-cnn": 128, "resnet18": 128, "wrn-34-10": 16}

# Pause between bursts, in seconds: threads that spin while waiting for work give up in that time.
PAUSE = 0.3
# How far apart logits may be, relative to the largest.
LOGITS = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 0.1}
# How far apart losses may be if the two sides draw different dropout masks or random starts.
RANDOM = 0.03


class Failure(Exception):
    """An error message for the user."""


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        worker = [find_worker()]
        agreed = scaling(args, worker) if args.scaling else comparison(args, worker)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if agreed else 1)


def parse():
    parser = argparse.ArgumentParser(
        prog="compare.sh",
        description="Times our workloads against PyTorch's, interleaved, and prints ratios (above 1: ours is faster).",
        epilog="PYTHON names a Python with PyTorch; RAMPART_WORKER an existing worker, otherwise cargo builds one.",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the rows to this file")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda:N")
    parser.add_argument("--quick", action="store_true", help="fewer, shorter bursts; MART's step on small-cnn alone")
    parser.add_argument("--rounds", type=int, metavar="N", help="bursts for each side; default 5, with --quick 3")
    parser.add_argument("--threads", type=int, metavar="N", help="for each side; default: RAYON_NUM_THREADS, else all")
    parser.add_argument("--only", metavar="TEXT", default="", help="only where 'WORKLOAD NETWORK' contains this text")
    parser.add_argument("--precision", choices=["tf32", "bf16"], help="on a GPU, only this one; default: both")
    parser.add_argument("--scaling", action="store_true", help="ours alone, with one thread and with all")
    args = parser.parse_args()
    if not re.fullmatch(r"cpu|cuda:\d+", args.device):
        parser.error(f"--device {args.device}: no such device; known: cpu, cuda:0, cuda:1, …")
    if args.rounds is None:
        args.rounds = 3 if args.quick else 5
    if args.rounds < 1:
        parser.error("--rounds must be 1 or more")
    if args.precision and args.device == "cpu":
        parser.error("--precision is a GPU's; the CPU multiplies in fp32")
    args.precisions = ["fp32"] if args.device == "cpu" else [args.precision] if args.precision else ["tf32", "bf16"]
    if args.scaling and args.device != "cpu":
        parser.error("--scaling counts threads of the CPU; leave out --device")
    if args.threads is None:
        given = os.environ.get("RAYON_NUM_THREADS", "")
        args.threads = int(given) if given.isdigit() and int(given) > 0 else len(os.sched_getaffinity(0))
    if args.threads < 1:
        parser.error("--threads must be 1 or more")
    if args.scaling and args.threads < 2:
        parser.error("--scaling needs at least 2 threads to compare with one")
    args.cases = [case for case in cases(args) if args.only in f"{case[0]} {case[1]}"]
    if not args.cases:
        known = ", ".join(f"'{workload} {network}'" for workload, network in cases(args))
        parser.error(f"--only {args.only} matches nothing; known: {known}")
    if args.json and not args.json.absolute().parent.is_dir():
        parser.error(f"--json {args.json}: its folder does not exist")
    if not args.scaling:
        # Find it without importing it: this process should stay small.
        if importlib.util.find_spec("torch") is None:
            parser.error(f"{sys.executable} has no PyTorch; install it there or set PYTHON to a Python that has it")
    return args


def cases(args):
    if args.scaling:
        workloads = ["attack-step", "train-step"]
    elif args.quick:
        workloads = ["attack-step", "train-step", "mart-step"]
    else:
        workloads = WORKLOADS
    for workload in workloads:
        for network in BATCHES:
            if args.quick and workload in WHOLE and network != "small-cnn":
                continue
            yield workload, network


def burst_seconds(args):
    """The minimum length of a burst; it is always a whole number of steps."""
    return 0.7 if args.quick else 2.0


def find_worker():
    """The path of our worker, built now unless RAMPART_WORKER names one."""
    given = os.environ.get("RAMPART_WORKER")
    if given:
        if not os.access(given, os.X_OK):
            raise Failure(f"RAMPART_WORKER: {given} is not a program")
        return os.path.abspath(given)
    try:
        # Build it here and ask cargo for the path, because the target folder is configurable.
        build = ["cargo", "build", "-p", "benches", "--message-format", "json-render-diagnostics"]
        messages = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    except FileNotFoundError:
        raise Failure("cargo not found, which builds the worker; install Rust or set RAMPART_WORKER") from None
    except subprocess.CalledProcessError:
        raise Failure("the worker does not build; see above") from None
    for line in messages.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "rampart-worker":
            return message["executable"]
    raise Failure("cargo built no rampart-worker")


class Worker:
    """One side, in a process of its own."""

    def __init__(self, name, command, threads):
        self.name = name
        environment = dict(os.environ)
        for variable in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[variable] = str(threads)
        # Own session: an interrupt from the keyboard reaches only this process, which then ends the worker.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    def start(self, threads):
        self.ready = self._read()
        if self.ready["threads"] != threads:
            raise Failure(f"{self.name} works with {self.ready['threads']} threads instead of {threads}")

    def ask(self, line):
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # The read below reports it.
        return self._read()

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            raise Failure(f"the worker of {self.name} ended with status {status}; see its output above")
        return json.loads(line)

    def processor_seconds(self):
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.kill()
        self.process.wait()


class Pair:
    """Two workers that take turns."""

    def __init__(self, first, second, threads):
        self.workers = []
        try:
            for name, command, own_threads in (first, second):
                self.workers.append(Worker(name, command, own_threads))
            for worker, own_threads in zip(self.workers, threads):
                worker.start(own_threads)
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        for worker in self.workers:
            worker.end()

    def rounds(self, count, seconds):
        """Images per second of both sides in each round, and the last answers."""
        rates = []
        for _ in range(count):
            answers = []
            for worker, other in (self.workers, reversed(self.workers)):
                time.sleep(PAUSE)
                before = other.processor_seconds()
                answer = worker.ask(f"run {seconds}")
                idle = other.processor_seconds() - before
                if idle > 0.02 + 0.02 * answer["seconds"]:
                    note = f"note: {other.name} used {idle:.2f} s of processor time while it was not its turn"
                    print(note, file=sys.stderr)
                answers.append(answer)
            rates.append([answer["images"] / answer["seconds"] for answer in answers])
        return rates, answers


def summary(rates, over):
    """Median images per second of both sides, median ratio, spread. Ratios are first / second, or the inverse
    if `over` is 1."""
    ratios = [rate[over] / rate[1 - over] for rate in rates]
    middle = statistics.median(ratios)
    first, second = (statistics.median(rate[side] for rate in rates) for side in (0, 1))
    return first, second, middle, (max(ratios) - min(ratios)) / middle, ratios


def comparison(args, worker):
    rounds, seconds = args.rounds, burst_seconds(args)
    rows, agreed = [], True
    table = Table(
        [("workload", -11), ("network", -9), ("device", -6), ("precision", -9), ("batch", 5), ("ours img/s", 10),
         ("PyTorch", 9), ("ratio", 5), ("spread", 6), ("peak MiB", 8), ("PyTorch", 8)]
    )  # fmt: skip
    for workload, network in args.cases:
        for precision in args.precisions:
            batch = BATCHES[network]
            asked = [workload, network, str(batch), args.device, precision]
            ours = ("Rampart", [*worker, *asked], args.threads)
            theirs = [sys.executable, str(HERE / "torch_worker.py"), *asked, "--threads", str(args.threads)]
            with Pair(ours, ("PyTorch", theirs, args.threads), [args.threads] * 2) as pair:
                programs = " beside ".join(worker.ready["program"] for worker in pair.workers)
                table.begin(f"{programs}, {args.threads} threads each, {rounds} rounds of {seconds} s or a step")
                difference = disagreement(pair, workload, network, precision)
                if difference:
                    print(f"{workload} {network} {precision}: no ratio, {difference}", flush=True)
                    agreed = False
                    continue
                rates, (our_last, their_last) = pair.rounds(rounds, seconds)
            ours, theirs, ratio, spread, ratios = summary(rates, 0)
            row = {
                "workload": workload,
                "network": network,
                "device": args.device,
                "precision": precision,
                "batch": batch,
                "ours_images_per_s": ours,
                "pytorch_images_per_s": theirs,
                "ratio": ratio,
                "spread": spread,
                "ours_peak_mib": our_last["peak_mib"],
                "pytorch_peak_mib": their_last["peak_mib"],
                "raw_ratios": ratios,
                "raw_threads": args.threads,
            }
            rows.append(row)
            table.row([workload, network, args.device, precision, batch, ours, theirs, f"{ratio:.2f}",
                       f"{spread:.0%}", mib(row["ours_peak_mib"]), mib(row["pytorch_peak_mib"])])  # fmt: skip
            write(args.json, rows)
    write(args.json, rows)
    return agreed


def disagreement(pair, workload, network, precision):
    """The reason if the two do not compute the same, else None. Warms up both with a step or two."""
    ours, theirs = pair.workers
    if ours.ready["parameters"] != theirs.ready["parameters"]:
        return f"the networks have {ours.ready['parameters']} and {theirs.ready['parameters']} parameters"
    a, b = (worker.ask("check")["logits"] for worker in pair.workers)
    if len(a) != len(b):
        return f"{len(a)} and {len(b)} logits"
    largest = max(map(abs, b))
    apart = max(abs(x - y) for x, y in zip(a, b)) / largest
    if not apart <= LOGITS[precision]:
        return f"logits differ by {apart:.1e} of the largest ({LOGITS[precision]:g} is allowed)"
    # Each side draws its own dropout masks and random starts.
    random = workload in WHOLE or (workload == "train-step" and network == "small-cnn")
    allowed = RANDOM if random else LOGITS[precision]
    # The second step shows the effect of the first on network and images.
    for step in (1,) if random else (1, 2):
        a, b = (worker.ask("run 0")["value"] for worker in pair.workers)
        if not abs(a - b) <= allowed * abs(b):
            return f"the loss after step {step} is {a:.6f} here, {b:.6f} in PyTorch ({allowed:g} of it is allowed)"
    return None


def scaling(args, worker):
    rounds, seconds = args.rounds, burst_seconds(args)
    rows = []
    many = f"{args.threads} threads"
    table = Table(
        [("workload", -11), ("network", -9), ("batch", 5), ("1 thread", 9), (many, 9), ("factor", 6), ("spread", 6)]
    )
    for workload, network in args.cases:
        batch = BATCHES[network]
        command = [*worker, workload, network, str(batch), args.device, "fp32"]
        one, all_ = ("one thread", command, 1), (many, command, args.threads)
        with Pair(one, all_, [1, args.threads]) as pair:
            table.begin(f"{pair.workers[0].ready['program']}, images/s, {rounds} rounds of {seconds} s or a step")
            for each in pair.workers:
                each.ask("run 0")
            rates, _ = pair.rounds(rounds, seconds)
        single, several, factor, spread, ratios = summary(rates, 1)
        rows.append(
            {
                "workload": workload,
                "network": network,
                "device": args.device,
                "precision": "fp32",
                "batch": batch,
                "threads": args.threads,
                "one_thread_images_per_s": single,
                "images_per_s": several,
                "factor": factor,
                "spread": spread,
                "raw_factors": ratios,
            }
        )
        table.row([workload, network, batch, single, several, f"{factor:.2f}", f"{spread:.0%}"])
        write(args.json, rows)
    return True


def mib(value):
    return "–" if value is None else f"{value:.0f}"


def write(path, rows):
    """Writes atomically, so that readers never see a partial file."""
    if path:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(rows, indent=1) + "\n")
        partial.replace(path)


class Table:
    """Rows printed as they arrive. A column is a heading and a width; a negative width aligns to the left."""

    def __init__(self, columns):
        self.columns = columns
        self.begun = False

    def begin(self, title):
        if not self.begun:
            self.begun = True
            print(title)
            self.row([heading for heading, _ in self.columns])

    def row(self, values):
        cells = []
        for value, (heading, width) in zip(values, self.columns):
            # Two decimals below 100.
            text = (f"{value:.0f}" if value >= 100 else f"{value:.2f}") if isinstance(value, float) else str(value)
            cells.append(text.ljust(max(-width, len(heading))) if width < 0 else text.rjust(max(width, len(heading))))
        print("  ".join(cells).rstrip(), flush=True)


if __name__ == "__main__":
    main()
