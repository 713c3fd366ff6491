"""Logits of a classifier on scikit-learn's handwritten digits (1797 images, 10 classes).

A logistic regression is trained on half of the images. The logits are for all images, in the order
of the data set.
"""

from pathlib import Path

import numpy as np
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
