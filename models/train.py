"""Train the repository's two Fashion-MNIST models and export them as ONNX.

Writes fashion-mlp.onnx, fashion-cnn.onnx, images/ and expected.json next to
this file, and prints the figures that README.md quotes. README.md says how to
run it.
"""

import argparse
import gzip
import json
import os
from pathlib import Path

# One thread, so that sums are always taken in the same order and two runs on
# one kind of machine write the same bytes. Must be set before jax is imported.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

HERE = Path(__file__).resolve().parent

SEED = 7
SIDE = 28
BATCH = 128
HELD_OUT = 5_000  # training images kept for validation, so that recipes are never tuned on the test set
OPSET = 17
IR_VERSION = 8

IMAGES_PER_CLASS = 4
WRONG_PER_MODEL = range(4, 7)
MIN_MARGIN = 0.05  # between the two largest logits; another engine's rounding is orders of magnitude smaller


# Data.


def read_idx(path, ndim):
    """The unsigned bytes of a gzipped IDX file of the given number of dimensions."""
    raw = gzip.decompress(path.read_bytes())
    if raw[:4] != bytes([0, 0, 8, ndim]):
        raise ValueError(f"{path}: not an IDX file of unsigned bytes with {ndim} dimensions")
    shape = np.frombuffer(raw, ">u4", ndim, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def read_split(folder, split):
    images = read_idx(folder / f"{split}-images-idx3-ubyte.gz", 3).astype(np.float32)
    labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz", 1).astype(np.int32)
    return images, labels


# The two networks, first as JAX functions. Both take raw pixels, 0 to 255.


def he_normal(rng, shape, fan_in):
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def zeros(n):
    return np.zeros(n, np.float32)


def init_mlp(rng):
    return {
        "hidden.weight": he_normal(rng, (784, 128), 784),
        "hidden.bias": zeros(128),
        "out.weight": he_normal(rng, (128, 10), 128),
        "out.bias": zeros(10),
    }


def apply_mlp(p, pixels):
    x = pixels.reshape(-1, 784) / 255
    x = jax.nn.relu(x @ p["hidden.weight"] + p["hidden.bias"])
    return x @ p["out.weight"] + p["out.bias"]


def init_cnn(rng):
    return {
        "conv1.weight": he_normal(rng, (16, 1, 3, 3), 9),
        "conv1.bias": zeros(16),
        "conv2.weight": he_normal(rng, (32, 16, 3, 3), 16 * 9),
        "conv2.bias": zeros(32),
        "hidden.weight": he_normal(rng, (32 * 7 * 7, 64), 32 * 7 * 7),
        "hidden.bias": zeros(64),
        "out.weight": he_normal(rng, (64, 10), 64),
        "out.bias": zeros(10),
    }


def apply_cnn(p, pixels):
    x = pixels.reshape(-1, 1, SIDE, SIDE) / 255
    for layer in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(x, p[f"{layer}.weight"], (1, 1), ((1, 1), (1, 1)))
        x = jax.nn.relu(x + p[f"{layer}.bias"][:, None, None])
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
    x = x.reshape(-1, 32 * 7 * 7)
    x = jax.nn.relu(x @ p["hidden.weight"] + p["hidden.bias"])
    return x @ p["out.weight"] + p["out.bias"]


# The same two as ONNX nodes, from "scaled" to "logits".


def dense_head(flat):
    return [
        helper.make_node("Gemm", [flat, "hidden.weight", "hidden.bias"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "out.weight", "out.bias"], ["logits"]),
    ]


def mlp_nodes():
    return [helper.make_node("Flatten", ["scaled"], ["flat"], axis=1), *dense_head("flat")]


def cnn_nodes():
    nodes = [helper.make_node("Reshape", ["scaled", "nchw"], ["conv1.in"])]
    for layer, out in (("conv1", "conv2.in"), ("conv2", "features")):
        inputs = [f"{layer}.in", f"{layer}.weight", f"{layer}.bias"]
        nodes += [
            # strides are spelled out because GoMLX does not know their default.
            helper.make_node("Conv", inputs, [f"{layer}.sum"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
            helper.make_node("Relu", [f"{layer}.sum"], [f"{layer}.active"]),
            helper.make_node("MaxPool", [f"{layer}.active"], [out], kernel_shape=[2, 2], strides=[2, 2]),
        ]
    return [*nodes, helper.make_node("Flatten", ["features"], ["flat"], axis=1), *dense_head("flat")]


MODELS = {
    # name: (init, apply, nodes, constants of the ONNX graph, epochs)
    "fashion-mlp": (init_mlp, apply_mlp, mlp_nodes, {}, 10),
    "fashion-cnn": (init_cnn, apply_cnn, cnn_nodes, {"nchw": np.array([-1, 1, SIDE, SIDE])}, 6),
}


# Training: Adam with a step size that falls linearly to zero.


def make_step(apply, steps, peak=2e-3, b1=0.9, b2=0.999, eps=1e-8):
    def loss(p, pixels, labels):
        log_probabilities = jax.nn.log_softmax(apply(p, pixels))
        return -jnp.take_along_axis(log_probabilities, labels[:, None], 1).mean()

    @jax.jit
    def step(p, m, v, i, pixels, labels):
        g = jax.grad(loss)(p, pixels, labels)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        rate = peak * (1 - i / steps) * jnp.sqrt(1 - b2 ** (i + 1)) / (1 - b1 ** (i + 1))
        p = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + eps), p, m, v)
        return p, m, v

    return step


def train(name, images, labels):
    init, apply, _, _, epochs = MODELS[name]
    held_images, held_labels = images[-HELD_OUT:], labels[-HELD_OUT:]
    images, labels = images[:-HELD_OUT], labels[:-HELD_OUT]

    rng = np.random.default_rng(SEED)
    p = init(rng)
    m = v = jax.tree.map(np.zeros_like, p)
    per_epoch = len(images) // BATCH
    step = make_step(apply, epochs * per_epoch)
    predict = jax.jit(lambda p, pixels: apply(p, pixels).argmax(1))

    i = 0
    for epoch in range(1, epochs + 1):
        for rows in rng.permutation(len(images))[: per_epoch * BATCH].reshape(-1, BATCH):
            p, m, v = step(p, m, v, np.float32(i), images[rows], labels[rows])
            i += 1
        held_out = np.mean(predict(p, held_images) == held_labels)
        print(f"{name}: epoch {epoch} of {epochs}, accuracy on held-out training images {held_out:.4f}", flush=True)
    return {key: np.asarray(value) for key, value in p.items()}


# Export, and everything that is measured on the exported file.


def export(name, parameters, path):
    _, _, nodes, constants, _ = MODELS[name]
    constants = {"white": np.float32(255), **constants, **parameters}
    graph = helper.make_graph(
        [helper.make_node("Div", ["image", "white"], ["scaled"]), *nodes()],
        name,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        producer_name="orrery models/train.py",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(f"{name}: {sum(p.size for p in parameters.values())} parameters, {path.stat().st_size} bytes")


def run(path, images):
    """The logits that ONNX's reference evaluator computes with the exported file."""
    session = ReferenceEvaluator(str(path))
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in np.split(images, 20)])


def report(name, logits, labels, names):
    guesses = logits.argmax(1)
    print(f"{name}: {np.sum(guesses == labels)} of {len(labels)} test images right")
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, guesses), 1)
    for label, row in enumerate(confusion):
        right = row[label]
        row[label] = 0
        print(f"  {names[label]:12} {right:4} right, most often taken for {names[row.argmax()]} ({row.max()})")


def select(logits, labels):
    """Test image numbers, as many of each class, some of which each model gets wrong; none is a close call."""
    rng = np.random.default_rng(SEED)
    top = {name: np.sort(values, axis=1) for name, values in logits.items()}
    clear = np.all([t[:, -1] - t[:, -2] >= MIN_MARGIN for t in top.values()], axis=0)
    wrong = np.array([values.argmax(1) != labels for values in logits.values()])
    while True:
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(clear & (labels == c)), IMAGES_PER_CLASS, replace=False) for c in range(10)]
        )
        if all(n in WRONG_PER_MODEL for n in wrong[:, chosen].sum(1)):
            return np.sort(chosen)


def write_images(out, chosen, images, labels, logits, names):
    folder = out / "images"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    entries = []
    for i in chosen:
        name = names[labels[i]]
        file = f"{i:04}-{name.lower().replace('/', '-').replace(' ', '-')}.png"
        Image.fromarray(images[i].astype(np.uint8)).save(folder / file, optimize=True)
        predictions = {model: int(values[i].argmax()) for model, values in logits.items()}
        entries.append({"file": file, "label": int(labels[i]), "name": name, "predictions": predictions})
    text = ",\n".join("    " + json.dumps(entry) for entry in entries)
    (out / "expected.json").write_text(f'{{\n  "images": [\n{text}\n  ]\n}}\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default="/usr/share/datasets/fashion-mnist", help="folder of the IDX files")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    args = parser.parse_args()

    names = (HERE / "labels.txt").read_text().splitlines()
    images, labels = read_split(args.data, "train")
    test_images, test_labels = read_split(args.data, "t10k")
    logits = {}
    for name in MODELS:
        path = args.out / f"{name}.onnx"
        export(name, train(name, images, labels), path)
        logits[name] = run(path, test_images)
        report(name, logits[name], test_labels, names)
    write_images(args.out, select(logits, test_labels), test_images, test_labels, logits, names)


if __name__ == "__main__":
    main()
