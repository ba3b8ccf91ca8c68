"""Trains the digits models and writes all that is committed of them, or checks it.

    python train.py            writes the files
    python train.py --check    makes them again, compares byte for byte, says what differs

Data: scikit-learn's own digits, 1,797 scans of 8x8 pixels, 0 to 16. A fixed fifth is held out; no
model sees it in training. The golden vectors and the held-out file are taken from it.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import cnn
import export

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "examples" / "packages"
PASSTHROUGH = ROOT / "wasm-models" / "fixtures" / "passthrough"
HELD_OUT_FILE = ROOT / "examples" / "data" / "digits-heldout.json"
REQUEST_FILE = ROOT / "examples" / "data" / "digit-request.json"

SPLIT_SEED, HELD_OUT = 2024, 360
PIXEL_MAX = 16.0

# A backend's float32 differs from this float64 by some 1e-6; fp16 arithmetic by up to 1e-3.
TOLERANCE = 0.001

RECIPES = {
    "1.0.0": cnn.Recipe(channels=(6, 8), epochs=20, shift=False, seed=1),
    "1.1.0": cnn.Recipe(channels=(8, 32), epochs=100, shift=True, seed=2),
}


def scale(pixels):
    """What the guest does too: 0..16 to 0.0..1.0, exactly."""
    return (pixels / PIXEL_MAX)[..., None]


def split():
    """Gives (pixels, labels) to train on, and (pixels, labels) held out."""
    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8), digits.target
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(labels))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    return (pixels[rest], labels[rest]), (pixels[held], labels[held])


def lines(head, name, items, tail=""):
    """JSON with one item of the long list to a line."""
    rows = ",\n".join(json.dumps(item, separators=(",", ":")) for item in items)
    return f"{{{head}{json.dumps(name)}:[\n{rows}\n]{tail}}}\n".encode()


def held_out_file(pixels, labels):
    items = [
        {"label": int(label), "image": image.ravel().tolist()}
        for image, label in zip(pixels, labels, strict=True)
    ]
    return lines('"dataset":"sklearn-digits-heldout","shape":[8,8],', "digits", items)


def golden_choice(labels, answers):
    """One held-out scan per class, in the order they come: the first that every version gets right."""
    right = np.all([answer.argmax(axis=1) == labels for answer in answers], axis=0)
    chosen = [int(np.argmax(right & (labels == digit))) for digit in range(cnn.CLASSES)]
    if labels[chosen].tolist() != list(range(cnn.CLASSES)) or not right[chosen].all():
        raise ValueError("there is a digit that not every version gets right even once")
    return sorted(chosen)


def golden_file(chosen, pixels, labels, probabilities):
    """The chosen scans as the package's golden vectors: what goes in, and what comes out."""
    vectors = []
    for at in chosen:
        row = [round(float(value), 6) for value in probabilities[at]]
        image = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8]}
        label = {"name": "label", "datatype": "INT64", "shape": [1]}
        answer = {"name": "probabilities", "datatype": "FP32", "shape": [1, cnn.CLASSES]}
        vectors.append(
            {
                "inputs": [image | {"data": pixels[at].ravel().tolist()}],
                "outputs": [
                    label | {"data": [int(labels[at])]},
                    answer | {"data": row, "tolerance": TOLERANCE},
                ],
            }
        )
    return lines("", "vectors", vectors)


def raw_golden_file(chosen, pixels, probabilities):
    """Golden vectors for the model alone: what the guest would hand it."""
    vectors = []
    for at in chosen:
        image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}
        answer = {"name": "probabilities", "datatype": "FP32", "shape": [1, cnn.CLASSES]}
        row = [round(float(value), 6) for value in probabilities[at]]
        vectors.append(
            {
                "inputs": [image | {"data": scale(pixels[at]).ravel().tolist()}],
                "outputs": [answer | {"data": row, "tolerance": TOLERANCE}],
            }
        )
    return lines("", "vectors", vectors)


def make():
    """Gives every file's path and bytes, and each version's accuracy."""
    (pixels, labels), (held_pixels, held_labels) = split()
    files, accuracies, answers = {HELD_OUT_FILE: held_out_file(held_pixels, held_labels)}, {}, {}
    for version, recipe in RECIPES.items():
        weights = cnn.train(recipe, scale(pixels), labels)
        probabilities = cnn.predict(weights, scale(held_pixels))
        model = export.to_onnx(weights, recipe.channels)
        written = export.evaluate(model, scale(held_pixels))
        if not np.allclose(written, probabilities, atol=1e-5):
            raise ValueError(f"{version}: the written model does not compute what was trained")
        right = int((written.argmax(axis=1) == held_labels).sum())
        accuracies[version] = f"{right / HELD_OUT:.4f}"
        print(f"digits {version}: {right} of {HELD_OUT} held-out digits, {len(model)} bytes")
        files[PACKAGES / f"digits-{version}" / "model.onnx"] = model
        answers[version] = probabilities
    chosen = golden_choice(held_labels, list(answers.values()))
    for version, probabilities in answers.items():
        golden = golden_file(chosen, held_pixels, held_labels, probabilities)
        files[PACKAGES / f"digits-{version}" / "golden.json"] = golden
    first = held_pixels[chosen[0]].ravel().tolist()
    image = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8], "data": first}
    files[REQUEST_FILE] = (json.dumps({"inputs": [image]}) + "\n").encode()
    raw = raw_golden_file(chosen, held_pixels, answers["1.0.0"])
    files[PASSTHROUGH / "golden.json"] = raw
    return files, accuracies


def difference(path, data):
    """One sentence on how the committed file differs, or None."""
    name = path.relative_to(ROOT)
    if not path.is_file():
        return f"{name}: missing"
    old = path.read_bytes()
    if old == data:
        return None
    common = zip(old, data, strict=False)
    first = next((at for at, (a, b) in enumerate(common) if a != b), min(len(old), len(data)))
    return f"{name}: differs from byte {first} on ({len(old)} bytes committed, {len(data)} made)"


def stated_accuracy(version):
    """The accuracy that the package's rimward.yaml claims, or None."""
    path = PACKAGES / f"digits-{version}" / "rimward.yaml"
    if not path.is_file():
        return None
    found = re.search(r'name: accuracy, value: "([0-9.]+)"', path.read_text())
    return found and found[1]


def main():
    parser = argparse.ArgumentParser(description="Trains the digits models.")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    files, accuracies = make()
    findings = []
    for path, data in files.items():
        if check:
            findings.append(difference(path, data))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for version, accuracy in accuracies.items():
        stated = stated_accuracy(version)
        if stated != accuracy:
            findings.append(f"digits {version}: rimward.yaml says {stated}, measured {accuracy}")
    findings = [finding for finding in findings if finding]
    print("\n".join(findings) or f"{len(files)} files: {'the same' if check else 'written'}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
