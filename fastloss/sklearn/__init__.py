"""fastloss in the places where scikit-learn's users look for losses."""

from fastloss.sklearn.metrics import (
    brier_score_loss,
    d2_log_loss_score,
    hinge_loss,
    log_loss,
    mean_absolute_error,
    mean_gamma_deviance,
    mean_pinball_loss,
    mean_poisson_deviance,
    mean_squared_error,
    mean_tweedie_deviance,
)

__all__ = [
    "brier_score_loss",
    "d2_log_loss_score",
    "hinge_loss",
    "log_loss",
    "mean_absolute_error",
    "mean_gamma_deviance",
    "mean_pinball_loss",
    "mean_poisson_deviance",
    "mean_squared_error",
    "mean_tweedie_deviance",
]
