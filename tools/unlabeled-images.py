"""Converts unlabeled images to the file that `extra` in a matrix's `dataset` names.

    python tools/unlabeled-images.py ti_500K_pseudo_labeled.pickle ti_500K.safetensors

Reads the pickle of yaircarmon/semisup-adv (500,000 images from TinyImages) or a .npz with `image`, the usual format of
generated images; both hold bytes [N, H, W, C]. Labels in them are ignored: the teacher labels the images. Needs numpy
and safetensors. Loading a pickle executes code, so use only a file that you got from its authors.
"""

import pickle
import sys

import numpy
import safetensors.numpy

source, target = sys.argv[1:]
if source.endswith(".npz"):
    images = numpy.load(source)["image"]
else:
    with open(source, "rb") as file:
        images = pickle.load(file)["data"]
if images.dtype != numpy.uint8 or images.ndim != 4:
    sys.exit(f"{source}: expected bytes [N, H, W, C], got {images.dtype} {images.shape}")
images = numpy.ascontiguousarray(images.transpose(0, 3, 1, 2))
safetensors.numpy.save_file({"images": images}, target)
