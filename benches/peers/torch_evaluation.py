#!/usr/bin/env python3
"""PyTorch's side of auto_attack.py: torch_evaluation.py CHECKPOINT NETWORK EXAMPLES THREAT [--threads N].

It speaks the same protocol as `rampart-worker evaluate`; see ../src/main.rs. AutoAttack is its authors' unmodified
code: fra31/auto-attack, or its package on PyPI, pyautoattack. It is observed from outside: every pass through the
network is counted, and every image that an attack returns is classified once more, not counted and not timed.
"""

import argparse
import inspect
import json
import logging
import sys
import time

STEPS = 20
# The batch size of the authors' code, its own default.
BATCH = 250


def main():
    parser = argparse.ArgumentParser(description="PyTorch's side of a comparison of evaluations")
    for name in ("checkpoint", "network", "examples", "threat"):
        parser.add_argument(name)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    try:
        import torch
        from safetensors.torch import load_file

        AutoAttack, package = find_auto_attack()
    except ImportError as error:
        sys.exit(f"error: {sys.executable} lacks a module ({error}); see auto_attack.sh --help")
    if args.threads:
        torch.set_num_threads(args.threads)
    serve(Evaluation(args, torch, load_file, AutoAttack), package, torch)


def find_auto_attack():
    """The class and the name of its package."""
    try:
        from autoattack import AutoAttack

        return AutoAttack, "autoattack"
    except ImportError:
        from pyautoattack import AutoAttack

        return AutoAttack, "pyautoattack"


def serve(evaluation, package, torch):
    from importlib import metadata

    try:
        package += " " + metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
    answer(
        {
            "ready": True,
            "program": f"PyTorch {torch.__version__} with {package}",
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in evaluation.net.parameters()),
            "ids": evaluation.ids,
        }
    )
    for line in sys.stdin:
        words = line.split()
        if len(words) == 3 and words[0] == "check":
            answer({"logits": evaluation.logits(slice(*map(int, words[1:]))).flatten().tolist()})
        elif len(words) == 4 and words[0] in ("auto-attack", "tenth", "pgd", "cw"):
            first, last, seed = map(int, words[1:])
            attack = evaluation.ascent if words[0] in ("pgd", "cw") else evaluation.auto_attack
            answer(attack(words[0], slice(first, last), seed))
        else:
            sys.exit(f"error: unknown command `{line.strip()}`")


def answer(line):
    print(json.dumps(line), flush=True)


class Evaluation:
    """A network and the examples it is attacked on."""

    def __init__(self, args, torch, load_file, auto_attack):
        import networks

        self.torch = torch
        self.auto_attack_class = auto_attack
        norm, epsilon = args.threat.split(":")
        upper, _, lower = epsilon.partition("/")
        self.norm, self.epsilon = {"linf": "Linf", "l2": "L2"}[norm], float(upper) / float(lower or 1)
        kept = load_file(args.examples)
        self.images, self.labels, self.ids = kept["clean"].float(), kept["labels"].long(), kept["ids"].tolist()
        self.net = networks.named(args.network, tuple(self.images.shape[1:]), 10)
        self.net.load_state_dict(load_file(args.checkpoint))
        # Gradients of parameters are not needed, and FAB's code would compute them.
        self.net.eval().requires_grad_(False)
        self.model = Counted(torch, self.net)

    def logits(self, rows):
        with self.torch.no_grad():
            return self.net(self.images[rows])

    def wrong(self, images, labels):
        with self.torch.no_grad():
            return (self.net(images).argmax(1) != labels).tolist()

    def auto_attack(self, name, rows, seed):
        images, labels, ids = self.images[rows], self.labels[rows], self.ids[rows]
        # Its checks of the network log messages, which are not part of the protocol.
        logging.getLogger("auto-attack").setLevel(logging.CRITICAL)
        options = {"norm": self.norm, "eps": self.epsilon, "seed": seed, "version": "standard", "device": "cpu"}
        if "verbose" in inspect.signature(self.auto_attack_class.__init__).parameters:
            options["verbose"] = False
        attack = self.auto_attack_class(self.model.module, **options)
        attack.verbose = False
        wrong = self.wrong(images, labels)
        watch = Watch(self, [id for id, wrong in zip(ids, wrong) if not wrong])
        names = {"apgd-ce": "apgd", "apgd-t": "apgd_targeted", "fab-t": "fab", "square": "square"}
        for stage in attack.attacks_to_run:
            part = getattr(attack, names[stage])
            part.perturb = watch.watched(stage, part.perturb)
        if name == "tenth":
            for part in (attack.apgd, attack.apgd_targeted, attack.fab):
                part.n_iter //= 10
            attack.square.n_queries //= 10
        batch = "bs" if "bs" in inspect.signature(attack.run_standard_evaluation).parameters else "batch_size"
        start = time.perf_counter()
        attack.run_standard_evaluation(images, labels, **{batch: BATCH})
        seconds = time.perf_counter() - start - watch.off_the_clock
        # Passes outside the four attacks, on clean images and on what was found.
        forwards, backwards = self.model.take()
        stages = list(watch.stages.values())
        outside = {"attack": "outside", "broken": [], "forwards": forwards, "backwards": backwards,
                   "seconds": seconds - sum(stage["seconds"] for stage in stages)}  # fmt: skip
        return {
            "wrong": [id for id, wrong in zip(ids, wrong) if wrong],
            "stages": [*stages, outside],
            "seconds": seconds,
        }

    def ascent(self, name, rows, seed):
        """Steps of ε/10 (L2: ε/8) up cross entropy, or up CW's margin loss, from a random start."""
        torch = self.torch
        torch.manual_seed(seed)
        self.model.take()
        start = time.perf_counter()
        broken = []
        every, ids = range(*rows.indices(len(self.ids))), self.ids
        for first in range(every.start, every.stop, BATCH):
            part = slice(first, min(first + BATCH, every.stop))
            images, labels = self.images[part], self.labels[part]
            found = self.ascend(name, images, labels)
            with torch.no_grad():
                fooled = self.model.module(found).argmax(1) != labels
            broken += [id for id, fooled in zip(ids[part], fooled.tolist()) if fooled]
        seconds = time.perf_counter() - start
        forwards, backwards = self.model.take()
        stage = {"attack": name, "broken": broken, "forwards": forwards, "backwards": backwards, "seconds": seconds}
        return {"wrong": [], "stages": [stage], "seconds": seconds}

    def ascend(self, name, images, labels):
        torch, epsilon = self.torch, self.epsilon
        lower, upper = (images - epsilon).clamp(min=0.0), (images + epsilon).clamp(max=1.0)

        def project(points):
            if self.norm == "Linf":
                return torch.min(torch.max(points, lower), upper)
            change = points.clamp(0.0, 1.0) - images
            return images + change * (epsilon / lengths(change).clamp(min=1e-12)).clamp(max=1.0)

        def lengths(values):
            return values.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)

        def loss(logits):
            if name == "pgd":
                return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            right = logits.gather(1, labels.unsqueeze(1)).squeeze(1)
            other = logits.scatter(1, labels.unsqueeze(1), -float("inf")).max(1)[0]
            return -(right - other + 50.0).clamp(min=0.0).sum()

        draws = torch.rand_like(images)
        points = images + (2.0 * draws - 1.0) * epsilon if self.norm == "Linf" else project(draws)
        for _ in range(STEPS):
            points.requires_grad_()
            gradient = torch.autograd.grad(loss(self.model.module(points)), [points])[0]
            points = points.detach()
            if self.norm == "Linf":
                points = project(points + epsilon / 10 * gradient.sign())
            else:
                points = project(points + epsilon / 8 * gradient / lengths(gradient).clamp(min=1e-12))
        return points


class Counted:
    """A network that counts its passes, forwards and backwards, in images."""

    def __init__(self, torch, net):
        counts = self

        class Module(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = net

            def forward(self, images):
                counts.forwards += len(images)
                logits = self.net(images)
                if logits.requires_grad:
                    logits.register_hook(counts.went_back)
                return logits

        self.forwards = self.backwards = 0
        self.module = Module().eval()

    def went_back(self, gradient):
        self.backwards += len(gradient)

    def take(self):
        """Passes since the last call."""
        taken = self.forwards, self.backwards
        self.forwards = self.backwards = 0
        return taken


class Watch:
    """Records what each of AutoAttack's attacks breaks and costs."""

    def __init__(self, evaluation, standing):
        self.evaluation = evaluation
        self.standing = standing
        self.stages = {}
        self.waiting = []
        self.off_the_clock = 0.0
        evaluation.model.take()

    def watched(self, name, perturb):
        def watching(images, labels):
            model, evaluation = self.evaluation.model, self.evaluation
            if name not in self.stages:
                # It attacks the surviving images, batch after batch, in order.
                self.waiting = list(self.standing)
                self.stages[name] = {"attack": name, "broken": [], "forwards": 0, "backwards": 0, "seconds": 0.0}
            stage = self.stages[name]
            before = model.forwards, model.backwards
            start = time.perf_counter()
            found = perturb(images, labels)
            ended = time.perf_counter()
            stage["seconds"] += ended - start
            stage["forwards"] += model.forwards - before[0]
            stage["backwards"] += model.backwards - before[1]
            model.forwards, model.backwards = before
            ids, self.waiting = self.waiting[: len(labels)], self.waiting[len(labels) :]
            broken = [id for id, wrong in zip(ids, evaluation.wrong(found, labels)) if wrong]
            stage["broken"] += broken
            self.standing = [id for id in self.standing if id not in set(broken)]
            self.off_the_clock += time.perf_counter() - ended
            return found

        return watching


if __name__ == "__main__":
    main()
