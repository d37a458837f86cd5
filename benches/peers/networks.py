"""The networks to time or attack, in PyTorch, with their authors' parameter names."""

import re
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn


class SmallCnn(nn.Module):
    """SmallCNN of TRADES (Zhang et al. 2019, arXiv:1901.08573), for 28x28 grey images."""

    def __init__(self, classes=10):
        super().__init__()
        self.feature_extractor = nn.Sequential(
            OrderedDict(
                [
                    ("conv1", nn.Conv2d(1, 32, 3)),
                    ("relu1", nn.ReLU(inplace=True)),
                    ("conv2", nn.Conv2d(32, 32, 3)),
                    ("relu2", nn.ReLU(inplace=True)),
                    ("maxpool1", nn.MaxPool2d(2)),
                    ("conv3", nn.Conv2d(32, 64, 3)),
                    ("relu3", nn.ReLU(inplace=True)),
                    ("conv4", nn.Conv2d(64, 64, 3)),
                    ("relu4", nn.ReLU(inplace=True)),
                    ("maxpool2", nn.MaxPool2d(2)),
                ]
            )
        )
        self.classifier = nn.Sequential(
            OrderedDict(
                [
                    ("fc1", nn.Linear(64 * 4 * 4, 200)),
                    ("relu1", nn.ReLU(inplace=True)),
                    ("drop", nn.Dropout(0.5)),
                    ("fc2", nn.Linear(200, 200)),
                    ("relu2", nn.ReLU(inplace=True)),
                    ("fc3", nn.Linear(200, classes)),
                ]
            )
        )

    def forward(self, x):
        return self.classifier(self.feature_extractor(x).flatten(1))


class TinyCnn(nn.Module):
    """Ours: two convolutions with batch norm and a linear layer."""

    def __init__(self, image, classes=10):
        super().__init__()
        channels, height, width = image
        self.conv1 = conv3x3(channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = conv3x3(16, 32, stride=2)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * ((height + 1) // 2) * ((width + 1) // 2), classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.flatten(1))


class LeNet5(nn.Module):
    """LeNet-5 of Madry et al. 2018 (arXiv:1706.06083), under advertorch's names."""

    def __init__(self, image, classes=10):
        super().__init__()
        channels, height, width = image
        self.conv1 = nn.Conv2d(channels, 32, 5, padding=2)
        self.conv2 = nn.Conv2d(32, 64, 5, padding=2)
        self.linear1 = nn.Linear(64 * (height // 4) * (width // 4), 1024)
        self.linear2 = nn.Linear(1024, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.linear2(F.relu(self.linear1(x.flatten(1))))


def conv3x3(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def conv1x1(inputs, outputs, stride=1):
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class ResNetBlock(nn.Module):
    """Two convolutions, ReLU after the addition."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out)) + self.shortcut(x)
        return F.relu(out)


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv:1512.03385) with a 3x3 stem, as MART has it."""

    def __init__(self, classes=10):
        super().__init__()
        self.conv1 = conv3x3(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = self._layer(64, 64, 1)
        self.layer2 = self._layer(64, 128, 2)
        self.layer3 = self._layer(128, 256, 2)
        self.layer4 = self._layer(256, 512, 2)
        self.linear = nn.Linear(512, classes)

    @staticmethod
    def _layer(inputs, outputs, stride):
        return nn.Sequential(ResNetBlock(inputs, outputs, stride), ResNetBlock(outputs, outputs, 1))

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


class WideBlock(nn.Module):
    """Batch norm and ReLU before each convolution."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut = None if inputs == outputs else conv1x1(inputs, outputs, stride)

    def forward(self, x):
        active = F.relu(self.bn1(x), inplace=True)
        out = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return out + (x if self.convShortcut is None else self.convShortcut(active))


class WideGroup(nn.Module):
    """Blocks of one width."""

    def __init__(self, blocks, inputs, outputs, stride):
        super().__init__()
        rest = [WideBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(WideBlock(inputs, outputs, stride), *rest)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-34-10 (Zagoruyko and Komodakis 2016, arXiv:1605.07146) as in MART's code: with `sub_block1`, which the
    forward pass does not use."""

    def __init__(self, classes=10, depth=34, widen=10):
        super().__init__()
        blocks, width = (depth - 4) // 6, 16 * widen
        self.conv1 = conv3x3(3, 16)
        self.block1 = WideGroup(blocks, 16, width, 1)
        self.sub_block1 = WideGroup(blocks, 16, width, 1)
        self.block2 = WideGroup(blocks, width, 2 * width, 2)
        self.block3 = WideGroup(blocks, 2 * width, 4 * width, 2)
        self.bn1 = nn.BatchNorm2d(4 * width)
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.relu(self.bn1(x), inplace=True)
        return self.fc(F.avg_pool2d(x, 8).flatten(1))


def named(name, image, classes):
    """A network by its name in `rampart ls models`, for images of this shape."""
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if wide:
        return WideResNet(classes, *map(int, wide.groups()))
    makers = {
        "tiny-cnn": lambda: TinyCnn(image, classes),
        "small-cnn": lambda: SmallCnn(classes),
        "lenet5": lambda: LeNet5(image, classes),
        "resnet18": lambda: ResNet18(classes),
    }
    if name not in makers:
        raise SystemExit(f"error: there is no {name} here in PyTorch; known: {', '.join(makers)}, wrn-DEPTH-WIDTH")
    return makers[name]()


# Constructor, channels height width, epsilon, step size, weight of MART's and of TRADES's KL term.
SUBJECTS = {
    "small-cnn": (SmallCnn, (1, 28, 28), 0.3, 0.075, 5.0, 1.0),
    "resnet18": (ResNet18, (3, 32, 32), 0.031, 0.007, 5.0, 6.0),
    "wrn-34-10": (WideResNet, (3, 32, 32), 0.031, 0.007, 6.0, 6.0),
}


def _numbers(shape, array):
    """f(i, j) of formula.rs in double precision: 2 (h >> 11) 2^-53 - 1, h = splitmix64(i + j 2^40)."""

    def signed(word):
        return word - (1 << 64) if word >> 63 else word

    def shifted(z, places):
        # PyTorch shifts int64 arithmetically.
        return (z >> places) & ((1 << (64 - places)) - 1)

    count = 1
    for side in shape:
        count *= side
    # Arithmetic on int64 wraps like that on unsigned integers.
    z = torch.arange(count, dtype=torch.int64) + signed((array << 40) + 0x9E3779B97F4A7C15)
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    z = z ^ shifted(z, 31)
    return (shifted(z, 11).double() * 2.0**-53 * 2.0 - 1.0).reshape(shape)


def _entries(model):
    return [(name, entry) for name, entry in model.state_dict().items() if not name.endswith("num_batches_tracked")]


@torch.no_grad()
def fill(model):
    """Parameters and running statistics of formula.rs."""
    for array, (name, entry) in enumerate(_entries(model)):
        numbers = _numbers(entry.shape, array)
        if entry.dim() > 1:
            numbers *= (2.0 / entry[0].numel()) ** 0.5
        elif name.endswith(".running_var"):
            numbers = 1.0 + 0.2 * numbers
        elif name.endswith(".weight"):
            numbers = 1.0 + 0.1 * numbers
        else:
            numbers *= 0.05
        entry.copy_(numbers)


def batch(model, image, examples, classes=10):
    """Images and labels of formula.rs."""
    images = 0.5 + 0.5 * _numbers((examples, *image), len(_entries(model)))
    return images.float(), (3 * torch.arange(examples) + 1) % classes
