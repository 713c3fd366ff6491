"""Predictions of a regression on scikit-learn's diabetes set (442 patients).

The target is a measure of the disease's progress one year on (25 to 346). A ridge regression is
trained on half of the patients; a gamma regression of its squared residuals on the same half
gives the variance that it expects of each prediction.
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
spread = make_pipeline(StandardScaler(), GammaRegressor(alpha=1.0))
spread.fit(features[half], residual[half] ** 2)

np.save(folder / "prediction.npy", prediction)
np.save(folder / "target.npy", target)
np.save(folder / "variance.npy", spread.predict(features))
