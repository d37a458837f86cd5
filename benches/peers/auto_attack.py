"""Compares our AutoAttack with its authors' and prints agreement, passes and speed.

Two workers, one for each side, load the same network from a file of `rampart export`, and the same images from a file
of `rampart attack --save-examples`. Before anything is attacked, they must agree on the logits. Then they take turns of
some images each, so that other load on the machine affects both. A ratio is computed within each turn, and the result
is the median. Spread is (largest - smallest) / median of those ratios.
"""

import argparse
import importlib.util
import os
import signal
import statistics
import sys
import time
from pathlib import Path

from compare import HERE, PAUSE, Failure, Pair, Table, find_worker, write

EPILOG = """\
PYTHON names a Python with PyTorch, safetensors and the authors' AutoAttack, for example
    python3 -m venv peers && peers/bin/pip install torch safetensors pyautoattack
    PYTHON=peers/bin/python benches/peers/auto_attack.sh ...
(pyautoattack is fra31/auto-attack on PyPI; if that repository itself is installed, as autoattack, it is preferred.)
RAMPART_WORKER names an existing worker, otherwise cargo builds one.

The network and the images:
    rampart export runs/NAME --out network.safetensors
    rampart attack --checkpoint network.safetensors --model small-cnn --dataset mnist --limit 1000 \\
        --attack fgsm --save-examples images.safetensors
"""

# How far apart logits may be, relative to the largest.
LOGITS = 1e-3
# Images whose logits are compared.
CHECKED = 64


def main():
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        agreed = comparison(args)
    except Failure as failure:
        sys.exit(f"error: {failure}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(0 if agreed else 1)


def parse():
    parser = argparse.ArgumentParser(
        prog="auto_attack.sh",
        description="Compares our AutoAttack with its authors' on the same network and images, interleaved.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", metavar="NETWORK", type=Path, help="a file of rampart export")
    parser.add_argument("examples", metavar="IMAGES", type=Path, help="a file of rampart attack --save-examples")
    parser.add_argument("--model", required=True, help="tiny-cnn, small-cnn, lenet5, resnet18 or wrn-DEPTH-WIDTH")
    parser.add_argument("--threat", required=True, metavar="NORM:RADIUS", help="such as linf:8/255 or l2:0.5")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--attacks", default="pgd,cw,auto-attack", metavar="LIST",
                        help="which of pgd,cw,auto-attack,tenth; tenth is AutoAttack with a tenth of its steps and "
                        "queries, to time large networks")  # fmt: skip
    parser.add_argument("--turn", type=int, default=250, metavar="N", help="images per turn; default 250")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run with seeds 0 to N-1; default 1")
    parser.add_argument("--threads", type=int, metavar="N", help="for each side; default: all")
    parser.add_argument("--tolerance", type=float, default=1.0, metavar="POINTS",
                        help="by how much robust accuracy may differ, in points; default 1")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write every outcome to this file")
    args = parser.parse_args()
    args.attacks = args.attacks.split(",")
    if not set(args.attacks) <= {"pgd", "cw", "auto-attack", "tenth"}:
        parser.error(f"--attacks {','.join(args.attacks)}: known are pgd, cw, auto-attack, tenth")
    if args.turn < 1 or args.seeds < 1 or (args.limit is not None and args.limit < 1):
        parser.error("--turn, --seeds and --limit must be at least 1")
    for file in (args.checkpoint, args.examples):
        if not file.is_file():
            parser.error(f"{file}: no such file")
    if args.threads is None:
        args.threads = len(os.sched_getaffinity(0))
    if args.threads < 1:
        parser.error("--threads must be at least 1")
    for module in ("torch", "safetensors"):
        if importlib.util.find_spec(module) is None:
            parser.error(f"{sys.executable} has no {module}; see --help")
    if not any(importlib.util.find_spec(module) for module in ("autoattack", "pyautoattack")):
        parser.error(f"{sys.executable} has neither autoattack nor pyautoattack; see --help")
    return args


def comparison(args):
    asked = [str(args.checkpoint), args.model, str(args.examples), args.threat]
    ours = ("Rampart", [find_worker(), "evaluate", *asked], args.threads)
    theirs = [sys.executable, str(HERE / "torch_evaluation.py"), *asked, "--threads", str(args.threads)]
    with Pair(ours, ("PyTorch", theirs, args.threads), [args.threads] * 2) as pair:
        examples = check(pair)
        if args.limit is not None:
            examples = min(examples, args.limit)
        programs = " beside ".join(worker.ready["program"] for worker in pair.workers)
        print(f"{programs}, {args.threads} threads each")
        print(f"{args.model} of {args.checkpoint.name}, {examples} images of {args.examples.name}, {args.threat}")
        speed = Table([("attack", -11), ("seed", 4), ("images", 6), ("ours img/s", 10), ("PyTorch", 9), ("ratio", 5),
                       ("spread", 6), ("ours correct", 12), ("PyTorch", 7), ("points apart", 12)])  # fmt: skip
        kept, results = [], []
        for seed in range(args.seeds):
            for attack in args.attacks:
                turns = take_turns(pair, attack, seed, examples, args.turn)
                kept.append({"attack": attack, "seed": seed, "turns": turns})
                write(args.json, kept)
                results.append((attack, seed, turns))
                show_speed(speed, attack, seed, examples, turns)
        agreed = True
        for attack, seed, turns in results:
            if attack in ("auto-attack", "tenth"):
                agreed &= show_auto_attack(attack, seed, examples, turns, args.tolerance)
        first = next((turns for attack, _, turns in results if attack == "auto-attack"), None)
        if first:
            show_ceiling(pair, first)
    return agreed


def check(pair):
    """The number of images, after checking that both sides have the same network and images."""
    ours, theirs = (worker.ready for worker in pair.workers)
    for what in ("parameters", "ids"):
        if ours[what] != theirs[what]:
            raise Failure(f"the {what} differ: {ours[what]} and {theirs[what]}")
    examples = len(ours["ids"])
    places = f"check 0 {min(CHECKED, examples)}"
    a, b = (worker.ask(places)["logits"] for worker in pair.workers)
    apart = max(abs(x - y) for x, y in zip(a, b, strict=True)) / max(map(abs, b))
    if not apart <= LOGITS:
        raise Failure(f"logits differ by {apart:.1e} of the largest ({LOGITS:g} is allowed): not the same network")
    return examples


def take_turns(pair, attack, seed, examples, turn):
    """Both sides' outcomes, turn by turn, with the positions of the images."""
    turns = []
    for number, first in enumerate(range(0, examples, turn)):
        last = min(first + turn, examples)
        # Alternate which side goes first.
        order = (0, 1) if number % 2 == 0 else (1, 0)
        outcomes = [None, None]
        for side in order:
            time.sleep(PAUSE)
            outcomes[side] = pair.workers[side].ask(f"{attack} {first} {last} {seed}")
        turns.append({"first": first, "last": last, "ours": outcomes[0], "pytorch": outcomes[1]})
    return turns


def broken(turns, side, stages=None):
    """The ids that a side misclassifies in the end, or after the first `stages` attacks."""
    ids = set()
    for turn in turns:
        ids.update(turn[side]["wrong"])
        for stage in turn[side]["stages"][:stages]:
            ids.update(stage["broken"])
    return ids


def show_speed(table, attack, seed, examples, turns):
    rates = [[(turn["last"] - turn["first"]) / turn[side]["seconds"] for side in ("ours", "pytorch")] for turn in turns]
    ratios = [ours / theirs for ours, theirs in rates]
    middle = statistics.median(ratios)
    counts = [examples - len(broken(turns, side)) for side in ("ours", "pytorch")]
    table.begin("")
    whole = [examples / sum(turn[side]["seconds"] for turn in turns) for side in ("ours", "pytorch")]
    spread = f"{(max(ratios) - min(ratios)) / middle:.0%}" if len(ratios) > 1 else "–"
    table.row([attack, seed, examples, *whole, f"{middle:.2f}", spread, *counts,
               f"{100 * (counts[0] - counts[1]) / examples:+.2f}"])  # fmt: skip


def show_auto_attack(attack, seed, examples, turns, tolerance):
    """Survivors, passes and time of each attack, and whether both agree."""
    title = {"auto-attack": "AutoAttack standard", "tenth": "AutoAttack, a tenth of standard"}[attack]
    print(f"\n{title}, seed {seed}: correct images after each attack; passes per image; seconds")
    table = Table([("after", -8), ("ours", 5), ("PyTorch", 7), ("only ours broke", 15), ("only theirs", 11),
                   ("ours fwd", 8), ("bwd", 7), ("PyTorch fwd", 11), ("bwd", 7), ("ours s", 8), ("PyTorch s", 9),
                   ("ratio", 5)])  # fmt: skip
    table.begin("")
    # Outside: classification of clean images, and what PyTorch's code classifies again of what its attacks found.
    names = ["clean"] + [stage["attack"] for stage in turns[0]["ours"]["stages"]]
    for number, name in enumerate(names):
        a, b = (broken(turns, side, min(number, len(names) - 2)) for side in ("ours", "pytorch"))
        stages = [part(turns, side, name) for side in ("ours", "pytorch")]
        passes = [f"{stage[what] / examples:.1f}" for stage in stages for what in ("forwards", "backwards")]
        seconds = [stage["seconds"] for stage in stages]
        ratio = f"{seconds[1] / seconds[0]:.2f}" if seconds[0] > 0 else "–"
        counts = [examples - len(a), examples - len(b), len(a - b), len(b - a)]
        if name == "clean":
            table.row([name, *counts])
        else:
            table.row([name, *(counts if name != "outside" else [""] * 4), *passes, *seconds, ratio])
    totals = [part(turns, side, None) for side in ("ours", "pytorch")]
    passes = [f"{total[what] / examples:.1f}" for total in totals for what in ("forwards", "backwards")]
    seconds = [sum(turn[side]["seconds"] for turn in turns) for side in ("ours", "pytorch")]
    table.row(["in all", "", "", "", "", *passes, *seconds, f"{seconds[1] / seconds[0]:.2f}"])
    a, b = (broken(turns, side) for side in ("ours", "pytorch"))
    points = 100 * (len(b) - len(a)) / examples
    same = examples - len(a ^ b)
    print(f"robust accuracy {100 - 100 * len(a) / examples:.2f} % and {100 - 100 * len(b) / examples:.2f} %, "
          f"{points:+.2f} points apart; {same} of {examples} images with the same outcome")  # fmt: skip
    if attack == "auto-attack" and abs(points) > tolerance:
        print(f"more than {tolerance:g} points apart")
        return False
    return True


def part(turns, side, name):
    """Totals of an attack over all turns; without a name, of all attacks and the passes outside them."""
    total = {"forwards": 0, "backwards": 0, "seconds": 0.0}
    for turn in turns:
        for stage in turn[side]["stages"]:
            if name in (None, stage["attack"]):
                for what in total:
                    total[what] += stage[what]
    return total


def show_ceiling(pair, turns):
    """Prints the cost of an image that survives on both sides, if there is one."""
    fallen = broken(turns, "ours") | broken(turns, "pytorch")
    ids = pair.workers[0].ready["ids"][: turns[-1]["last"]]
    place = next((place for place, id in enumerate(ids) if id not in fallen), None)
    if place is None:
        return
    outcomes = [worker.ask(f"auto-attack {place} {place + 1} 0") for worker in pair.workers]
    ours, theirs = (part([{"first": 0, "last": 1, "it": outcome}], "it", None) for outcome in outcomes)
    outside = outcomes[1]["stages"][-1]["forwards"]
    print(f"an image that survives all attacks: "
          f"ours {ours['forwards']} forward passes and {ours['backwards']} backward, "
          f"PyTorch {theirs['forwards']} and {theirs['backwards']}, "
          f"{outside} of them outside the four attacks")  # fmt: skip


if __name__ == "__main__":
    main()
