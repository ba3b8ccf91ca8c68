"""A small convolutional network and its training, in exact arithmetic.

conv 3x3 - relu - conv 3x3 - relu - maxpool 2x2 - fully connected - softmax, on images [N, 8, 8, 1]
of 0.0 to 1.0. Layout is NHWC here; export.py turns it into ONNX's NCHW.
"""

from dataclasses import dataclass

import numpy as np

from exact import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    GRADIENT_BITS,
    GRADIENT_MAX,
    WEIGHT_BITS,
    WEIGHT_MAX,
    matmul,
    softmax,
    to_grid,
)

SIDE, CLASSES = 8, 10


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, beside the data."""

    channels: tuple[int, int]
    epochs: int
    shift: bool  # augmentation: each image moved by up to one pixel
    seed: int
    batch: int = 64
    learning_rate: float = 0.002


def init(recipe, random):
    """Weights from a uniform distribution (exact in PCG64), scaled by fan-in; biases 0."""
    first, second = recipe.channels
    pooled = (SIDE // 2) ** 2 * second
    shapes = {"conv1": (9, first), "conv2": (9 * first, second), "fc": (pooled, CLASSES)}
    weights = {}
    for name, shape in shapes.items():
        bound = (6.0 / shape[0]) ** 0.5
        weights[name + ".weight"] = (random.random(shape) * 2.0 - 1.0) * bound
        weights[name + ".bias"] = np.zeros(shape[1])
    return weights


def on_grid(weights):
    return {name: to_grid(value, WEIGHT_BITS, WEIGHT_MAX) for name, value in weights.items()}


def patches(images):
    """[N, 8, 8, C] to [N, 8, 8, 9 C]: the 3x3 neighbourhood of each pixel, zero outside."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, r : r + SIDE, c : c + SIDE] for r in range(3) for c in range(3)]
    return np.concatenate(shifts, axis=3)


def unpatch(gradient, channels):
    """The transpose of `patches`."""
    padded = np.zeros((len(gradient), SIDE + 2, SIDE + 2, channels))
    for tap in range(9):
        r, c = divmod(tap, 3)
        part = gradient[..., tap * channels : (tap + 1) * channels]
        padded[:, r : r + SIDE, c : c + SIDE] += part
    return padded[:, 1:-1, 1:-1]


def windows(values):
    """[N, 8, 8, C] to [N, 4, 4, C, 4]: what each pooling window sees."""
    count, channels = len(values), values.shape[3]
    split = values.reshape(count, SIDE // 2, 2, SIDE // 2, 2, channels)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(count, SIDE // 2, SIDE // 2, channels, 4)


def unwindows(values):
    """The inverse of `windows`."""
    count, channels = len(values), values.shape[3]
    split = values.reshape(count, SIDE // 2, SIDE // 2, channels, 2, 2)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(count, SIDE, SIDE, channels)


def layer(inputs, weights, name):
    product = matmul(inputs, ACTIVATION_BITS, weights[name + ".weight"], WEIGHT_BITS)
    return product + weights[name + ".bias"]


def activation(values):
    return to_grid(np.maximum(values, 0.0), ACTIVATION_BITS, ACTIVATION_MAX)


def forward(weights, images):
    """Gives the logits, and what `backward` needs."""
    patches1 = patches(images)
    hidden1 = activation(layer(patches1, weights, "conv1"))
    patches2 = patches(hidden1)
    hidden2 = activation(layer(patches2, weights, "conv2"))
    seen = windows(hidden2)
    pooled = seen.max(axis=4)
    flat = pooled.reshape(len(images), -1)
    logits = layer(flat, weights, "fc")
    return logits, (patches1, hidden1, patches2, hidden2, seen, pooled, flat)


def backward(weights, kept, delta):
    """Gradients of all weights, summed over the batch, from that of the logits."""
    patches1, hidden1, patches2, hidden2, seen, pooled, flat = kept
    gradients = {}

    def step(name, inputs, delta):
        inputs, delta = inputs.reshape(-1, inputs.shape[-1]), delta.reshape(-1, delta.shape[-1])
        gradients[name + ".weight"] = matmul(inputs.T, ACTIVATION_BITS, delta, GRADIENT_BITS)
        gradients[name + ".bias"] = delta.sum(axis=0)

    def through(name, delta):
        return matmul(delta, GRADIENT_BITS, weights[name + ".weight"].T, WEIGHT_BITS)

    def gradient(values):
        return to_grid(values, GRADIENT_BITS, GRADIENT_MAX)

    step("fc", flat, delta)
    delta = gradient(through("fc", delta)).reshape(pooled.shape)
    delta = unwindows(delta[..., None] * (seen == pooled[..., None])) * (hidden2 > 0)
    step("conv2", patches2, delta)
    delta = gradient(unpatch(through("conv2", delta), hidden1.shape[3])) * (hidden1 > 0)
    step("conv1", patches1, delta)
    return gradients


def shifted(images, random):
    """Moves each image by -1, 0 or 1 pixel in each direction, zeros moving in."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = random.integers(0, 3, len(images)), random.integers(0, 3, len(images))
    moved = [
        image[r : r + SIDE, c : c + SIDE] for image, r, c in zip(padded, rows, columns, strict=True)
    ]
    return np.stack(moved)


def train(recipe, images, labels):
    """Adam on the cross entropy; gives weights on the grid, each exact in float32 too."""
    random = np.random.Generator(np.random.PCG64(recipe.seed))
    master = init(recipe, random)
    mean = {name: np.zeros_like(value) for name, value in master.items()}
    square = {name: np.zeros_like(value) for name, value in master.items()}
    decay1, decay2, left1, left2 = 0.9, 0.999, 1.0, 1.0
    targets = np.eye(CLASSES)[labels]
    for _ in range(recipe.epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order), recipe.batch):
            chosen = order[start : start + recipe.batch]
            batch = shifted(images[chosen], random) if recipe.shift else images[chosen]
            weights = on_grid(master)
            logits, kept = forward(weights, batch)
            delta = to_grid(softmax(logits) - targets[chosen], GRADIENT_BITS, GRADIENT_MAX)
            left1, left2 = left1 * decay1, left2 * decay2
            for name, total in backward(weights, kept, delta).items():
                gradient = total / len(chosen)
                mean[name] = decay1 * mean[name] + (1.0 - decay1) * gradient
                square[name] = decay2 * square[name] + (1.0 - decay2) * gradient * gradient
                scale = np.sqrt(square[name] / (1.0 - left2)) + 1e-8
                master[name] = master[name] - recipe.learning_rate * (
                    mean[name] / (1.0 - left1) / scale
                )
    return on_grid(master)


def predict(weights, images):
    """Probabilities, without the rounding of activations that training does."""
    hidden = patches(images)
    for name in ("conv1", "conv2"):
        sums = hidden @ weights[name + ".weight"] + weights[name + ".bias"]
        hidden = np.maximum(sums, 0.0) if name == "conv2" else patches(np.maximum(sums, 0.0))
    pooled = windows(hidden).max(axis=4)
    logits = pooled.reshape(len(images), -1) @ weights["fc.weight"] + weights["fc.bias"]
    return softmax(logits)
