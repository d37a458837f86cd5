#!/usr/bin/env python3
"""PyTorch's side of a comparison: torch_worker.py WORKLOAD NETWORK BATCH DEVICE PRECISION [--threads N].

It has the same protocol, workloads and numbers as rampart-worker; see ../src/lib.rs and ../src/main.rs.

Precisions: on the CPU `fp32`; on CUDA `tf32` (eager, convolutions in TF32) and `bf16` (channels last, autocast,
torch.compile(mode="max-autotune")).
"""

import argparse
import json
import sys
import time


def main():
    parser = argparse.ArgumentParser(description="PyTorch's side of a comparison")
    for name in ("workload", "network"):
        parser.add_argument(name)
    parser.add_argument("batch", type=int)
    for name in ("device", "precision"):
        parser.add_argument(name)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    try:
        import torch
    except ImportError as error:
        sys.exit(f"error: {sys.executable} has no PyTorch ({error})")

    from networks import SUBJECTS

    if args.workload not in WORKLOADS:
        sys.exit(f"error: unknown workload `{args.workload}`; known: {', '.join(WORKLOADS)}")
    if args.network not in SUBJECTS:
        sys.exit(f"error: unknown network `{args.network}`; known: {', '.join(SUBJECTS)}")
    if args.batch < 1:
        sys.exit(f"error: the batch is {args.batch}; it must be at least 1")
    known = ["fp32"] if args.device == "cpu" else ["tf32", "bf16"]
    if args.precision not in known:
        sys.exit(f"error: unknown precision `{args.precision}` for this device; known: {', '.join(known)}")
    if args.device != "cpu" and not torch.cuda.is_available():
        sys.exit(f"error: device {args.device}: PyTorch {torch.__version__} finds no CUDA device")
    if args.threads:
        torch.set_num_threads(args.threads)
    serve(args, torch)


def serve(args, torch):
    touch_libraries(torch, args.device)
    before = status_mib("VmRSS:")
    bench = Bench(args.workload, args.network, args.batch, args.device, args.precision)
    forget_peak(bench.device)
    answer(
        {
            "ready": True,
            "program": f"PyTorch {torch.__version__}",
            "threads": torch.get_num_threads(),
            "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
            "resident_mib": before,
        }
    )
    for line in sys.stdin:
        words = line.split()
        if words == ["check"]:
            answer({"logits": bench.logits().float().flatten().tolist()})
        elif len(words) == 2 and words[0] == "run":
            images, seconds, value = bench.run(float(words[1]))
            peak, high, low = peak_mib(bench.device, before)
            answer(
                {
                    "images": images,
                    "seconds": seconds,
                    "value": value,
                    "peak_mib": peak,
                    "high_water_mib": high,
                    "resident_before_mib": low,
                }
            )
        else:
            sys.exit(f"error: unknown command `{line.strip()}`; known: check, run SECONDS")


def answer(line):
    print(json.dumps(line), flush=True)


ATTACK_STEPS = 10
RATE = 0.001


class Bench:
    """A workload on one network and one batch, ready to run."""

    def __init__(self, workload, network, examples, device, precision):
        import networks
        import torch

        self.torch = torch
        make, image, self.epsilon, self.step_size, self.mart_weight, self.trades_weight = networks.SUBJECTS[network]
        self.device = torch.device(device)
        self.plain = make()
        networks.fill(self.plain)
        self.images, self.labels = networks.batch(self.plain, image, examples)
        self.plain.to(self.device)
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)

        self.autocast = precision == "bf16"
        self.model = self.plain
        if self.device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        if precision == "bf16":
            self.plain.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
            self.model = torch.compile(self.plain, mode="max-autotune")

        # The ball clipped to [0, 1]; the authors' code computes it again at every step.
        self.lower = (self.images - self.epsilon).clamp(min=0.0)
        self.upper = (self.images + self.epsilon).clamp(max=1.0)
        self.optimizer = torch.optim.SGD(self.plain.parameters(), lr=RATE, momentum=0.9, weight_decay=3.5e-3)
        self.attacked = self.images
        self.loss = None
        self.step = WORKLOADS[workload].__get__(self)
        self.is_training = workload not in ("forward", "attack-step")
        self.plain.eval()

    def __call__(self, images):
        """Logits in float32."""
        if not self.autocast:
            return self.model(images)
        with self.torch.autocast(self.device.type, dtype=self.torch.bfloat16):
            return self.model(images).float()

    def logits(self):
        self.plain.eval()
        with self.torch.no_grad():
            return self(self.images)

    def run(self, seconds):
        """Runs whole steps, at least one, for at least that long: images, seconds, value."""
        images = 0
        self.synchronise()
        start = time.perf_counter()
        while True:
            self.step()
            images += len(self.labels)
            # A step on CUDA is only queued: without this, the timing would not include the work.
            self.synchronise()
            passed = time.perf_counter() - start
            if passed >= seconds:
                break
        value = self.value()
        if value != value or abs(value) == float("inf"):
            sys.exit(f"error: the loss is {value}; what was timed is not training")
        return images, passed, value

    def value(self):
        """Like Bench::value in workload.rs."""
        if self.is_training:
            return self.loss.item()
        with self.torch.no_grad():
            return self.torch.nn.functional.cross_entropy(self(self.attacked), self.labels).item()

    def synchronise(self):
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    # What the steps are made of.

    def new_iteration(self):
        """Tells CUDA graphs that outputs of earlier passes are no longer needed."""
        if self.model is not self.plain:
            self.torch.compiler.cudagraph_mark_step_begin()

    def track_parameters(self, tracked):
        """A compiled backward pass computes every gradient that is tracked, wanted or not; eager ones do not, so
        there the parameters are left as the authors' code leaves them."""
        if self.model is not self.plain:
            for parameter in self.plain.parameters():
                parameter.requires_grad_(tracked)

    def ascend(self, images, loss):
        """A step along the sign of the gradient of loss(logits), projected onto the ball and [0, 1]."""
        torch = self.torch
        self.new_iteration()
        images = images.detach().requires_grad_()
        gradient = torch.autograd.grad(loss(self(images)), [images])[0]
        images = images.detach() + self.step_size * gradient.sign()
        return torch.min(torch.max(images, self.lower), self.upper)

    def attack(self, start, loss):
        """The images after all steps of an attack in evaluation mode; leaves the network in training mode."""
        self.plain.eval()
        self.track_parameters(False)
        images = start
        for _ in range(ATTACK_STEPS):
            images = self.ascend(images, loss)
        self.plain.train()
        self.track_parameters(True)
        self.new_iteration()
        return images

    def cross_entropy(self, logits):
        return self.torch.nn.functional.cross_entropy(logits, self.labels)

    def near(self):
        """Where MART and TRADES start."""
        return self.images + 0.001 * self.torch.randn_like(self.images)

    def descend(self, loss):
        self.loss = loss.detach()
        loss.backward()
        self.optimizer.step()

    # The steps.

    def forward_step(self):
        with self.torch.no_grad():
            self(self.images)

    def attack_step(self):
        self.track_parameters(False)
        self.attacked = self.ascend(self.attacked, self.cross_entropy)

    def train_step(self):
        self.plain.train()
        self.new_iteration()
        self.optimizer.zero_grad()
        self.descend(self.cross_entropy(self(self.images)))

    def at_step(self):
        """Madry et al. 2018, arXiv:1706.06083."""
        start = self.images + (2.0 * self.torch.rand_like(self.images) - 1.0) * self.epsilon
        images = self.attack(start, self.cross_entropy)
        self.optimizer.zero_grad()
        self.descend(self.cross_entropy(self(images)))

    def trades_step(self):
        """Zhang et al. 2019, arXiv:1901.08573; released code at yaodongyu/TRADES, 6e8e11b. It passes the clean
        images through the network again at every step of its attack; here, as in ours, once is enough."""
        F = self.torch.nn.functional
        kl = self.torch.nn.KLDivLoss(reduction="sum")
        self.plain.eval()
        self.new_iteration()
        with self.torch.no_grad():
            clean = F.softmax(self(self.images), dim=1).clone()
        images = self.attack(self.near(), lambda logits: kl(F.log_softmax(logits, dim=1), clean))
        self.optimizer.zero_grad()
        natural = self.cross_entropy(self(self.images))
        robust = kl(F.log_softmax(self(images), dim=1), F.softmax(self(self.images), dim=1)) / len(self.labels)
        self.descend(natural + self.trades_weight * robust)

    def mart_step(self):
        """Wang et al. 2020, OpenReview rklOg6EFwS; released code at YisenWang/MART, 2d83e17."""
        torch = self.torch
        F = torch.nn.functional
        images = self.attack(self.near(), self.cross_entropy)
        self.optimizer.zero_grad()
        natural_logits = self(self.images)
        robust_logits = self(images)
        robust = F.softmax(robust_logits, dim=1)
        highest = robust.argsort(dim=1)[:, -2:]
        wrong = torch.where(highest[:, -1] == self.labels, highest[:, -2], highest[:, -1])
        boosted = self.cross_entropy(robust_logits) + F.nll_loss(torch.log(1.0001 - robust + 1e-12), wrong)
        natural = F.softmax(natural_logits, dim=1)
        right = natural.gather(1, self.labels.unsqueeze(1)).squeeze(1)
        divergence = F.kl_div(torch.log(robust + 1e-12), natural, reduction="none").sum(dim=1)
        self.descend(boosted + self.mart_weight * (divergence * (1.0000001 - right)).mean())


WORKLOADS = {
    "forward": Bench.forward_step,
    "attack-step": Bench.attack_step,
    "train-step": Bench.train_step,
    "at-step": Bench.at_step,
    "trades-step": Bench.trades_step,
    "mart-step": Bench.mart_step,
}


# Memory: the device's if there is one, else what Linux reports; as in memory.rs.


def status_mib(field):
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(field):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def forget_peak(device):
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as marks:
            marks.write("5")
    except OSError:
        pass


def peak_mib(device, before):
    """The peak, and the two numbers whose difference it is."""
    if device.type == "cuda":
        import torch

        peak = torch.cuda.max_memory_allocated(device) / 2**20
        return peak, peak, 0.0
    high = status_mib("VmHWM:")
    return (None if high is None or before is None else high - before), high, before


def touch_libraries(torch, device):
    """A tiny training step, so that the pages of PyTorch's libraries are resident before memory is counted."""
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    net = net.to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = torch.rand(4, 3, 8, 8, device=device, requires_grad=True)
    nn.functional.cross_entropy(net(images), torch.zeros(4, dtype=torch.long, device=device)).backward()
    optimizer.step()


if __name__ == "__main__":
    main()
