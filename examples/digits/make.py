"""Logits of a classifier on scikit-learn's handwritten digits (1797 images, 10 classes).

A logistic regression is trained on half of the images. The logits are for all images, in the order
of the data set. The model is also stored as an ONNX file.

    pip install scikit-learn onnx && python examples/digits/make.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(__file__).parent
images, labels = load_digits(return_X_y=True)
half, _ = train_test_split(np.arange(len(labels)), train_size=0.5, random_state=0, stratify=labels)
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
model.fit(images[half], labels[half])
logits = model.decision_function(images)

np.save(folder / "logits.npy", np.ascontiguousarray(logits, dtype=np.float32))
np.save(folder / "labels.npy", labels.astype(np.int64))

# The same model as an ONNX file: the scaling of the images is part of its matrix.
scaler, classifier = model[0], model[1]
matrix = (classifier.coef_ / scaler.scale_).T
bias = classifier.intercept_ - scaler.mean_ @ matrix
FLOAT = onnx.TensorProto.FLOAT
graph = helper.make_graph(
    [helper.make_node("Gemm", ["images", "matrix", "bias"], ["logits"])],
    "digits",
    [helper.make_tensor_value_info("images", FLOAT, ["N", 64])],
    [helper.make_tensor_value_info("logits", FLOAT, ["N", 10])],
    [
        numpy_helper.from_array(matrix.astype(np.float32), "matrix"),
        numpy_helper.from_array(bias.astype(np.float32), "bias"),
    ],
)
onnx.save(
    helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
    folder / "model.onnx",
)
