"""A linear classifier of scikit-learn's 1797 handwritten digits, tuned for cross-entropy.

Cross-validation on half of the images chooses the label smoothing and the penalty. The other half
is the test set.

    pip install 'fastloss[sklearn]' && python examples/pipeline.py
"""

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastloss as fl
from fastloss.sklearn import LossClassifier, make_scorer

images, digits = load_digits(return_X_y=True)
train_images, test_images, train_digits, test_digits = train_test_split(
    images, digits, train_size=0.5, random_state=0, stratify=digits
)
search = GridSearchCV(
    make_pipeline(StandardScaler(), LossClassifier(fl.CrossEntropyLoss())),
    {
        "lossclassifier__criterion__label_smoothing": [0.0, 0.01],
        "lossclassifier__alpha": [1e-4, 1e-3, 1e-2],
    },
    scoring=make_scorer(fl.CrossEntropyLoss()),
    cv=3,
)
search.fit(train_images, train_digits)

for parameters, score in zip(
    search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
):
    options = ", ".join(f"{name.rpartition('__')[2]}={x:g}" for name, x in parameters.items())
    print(f"{options}: cross entropy {-score:.3f}")

entropy = -search.score(test_images, test_digits)
accuracy = search.best_estimator_.score(test_images, test_digits)
print(f"best model on the test set: cross entropy {entropy:.3f}, accuracy {accuracy:.3f}")
