"""Logits and probabilities of a classifier on scikit-learn's breast-cancer set (569 tumours).

A logistic regression is trained on half of the tumours to distinguish benign ones (label 1) from
malignant ones (label 0). The labels are float32, since targets of binary cross-entropy may be any
values between 0 and 1.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(__file__).parent
features, labels = load_breast_cancer(return_X_y=True)
half, _ = train_test_split(np.arange(len(labels)), train_size=0.5, random_state=0, stratify=labels)
model = make_pipeline(StandardScaler(), LogisticRegression())
model.fit(features[half], labels[half])

np.save(folder / "logits.npy", model.decision_function(features).astype(np.float32))
np.save(folder / "probabilities.npy", model.predict_proba(features)[:, 1].astype(np.float32))
np.save(folder / "labels.npy", labels.astype(np.float32))
