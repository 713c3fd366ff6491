"""Predictions of a regression on scikit-learn's diabetes set (442 patients).

The target measures the progress of the disease after one year (25 to 346). A ridge regression is
trained on half of the patients. A gamma regression of its squared residuals on the same half
predicts the variance of each prediction.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import GammaRegressor, Ridge
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = Path(__file__).parent
features, target = load_diabetes(return_X_y=True)
half, _ = train_test_split(np.arange(len(target)), train_size=0.5, random_state=0)
model = make_pipeline(StandardScaler(), Ridge(alpha=10.0)).fit(features[half], target[half])
prediction = model.predict(features)
residual = target - prediction
variance_model = make_pipeline(StandardScaler(), GammaRegressor(alpha=1.0))
variance_model.fit(features[half], residual[half] ** 2)

np.save(folder / "prediction.npy", prediction)
np.save(folder / "target.npy", target)
np.save(folder / "variance.npy", variance_model.predict(features))
