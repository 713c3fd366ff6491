"""Operations of other libraries that have a pool of threads.

Each function returns an operation of some milliseconds, with the library's default number of
threads. It raises an ImportError if the library is not installed.
"""

import numpy as np

ROWS, FEATURES = 20_000, 20  # of the tables for predictions


def none():
    return lambda: None


def numpy():
    a, b = _matrices(512)
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def scipy():
    # Its BLAS is not NumPy's. A factorization waits for its threads so often that it takes up to a
    # second if the machine is busy.
    from scipy.linalg.blas import sgemm

    a, b = map(np.asfortranarray, _matrices(512))
    return lambda: sgemm(1.0, a, b)


def onnxruntime():
    import onnxruntime

    session = onnxruntime.InferenceSession(_perceptron(), providers=["CPUExecutionProvider"])
    batch = {"x": np.random.default_rng(0).standard_normal((256, 512), dtype=np.float32)}
    return lambda: session.run(None, batch)


def torch():
    import torch

    a, b = map(torch.from_numpy, _matrices(512))
    return lambda: torch.mm(a, b)


def sklearn():
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = _table()
    model = HistGradientBoostingClassifier(max_iter=20, early_stopping=False).fit(x, y)
    return lambda: model.predict_proba(x)


def xgboost():
    import xgboost

    x, y = _table()
    parameters = {"objective": "binary:logistic"}
    model = xgboost.train(parameters, xgboost.DMatrix(x, label=y), num_boost_round=20)
    return lambda: model.inplace_predict(x)


def lightgbm():
    import lightgbm

    x, y = _table()
    parameters = {"objective": "binary", "verbose": -1}
    model = lightgbm.train(parameters, lightgbm.Dataset(x, label=y), num_boost_round=20)
    return lambda: model.predict(x)


def numba():
    import numba

    @numba.njit(parallel=True)
    def exponentials(x, out):
        for i in numba.prange(x.size):
            out[i] = np.exp(x[i])

    x = np.random.default_rng(0).random(1_000_000)
    out = np.empty_like(x)
    return lambda: exponentials(x, out)


def polars():
    import polars

    rng = np.random.default_rng(0)
    frame = polars.DataFrame({"key": rng.integers(0, 100, 500_000), "x": rng.random(500_000)})
    return lambda: frame.group_by("key").agg(polars.col("x").mean())


POOLS = {
    "none": none,
    "numpy": numpy,
    "scipy": scipy,
    "onnxruntime": onnxruntime,
    "torch": torch,
    "sklearn": sklearn,
    "xgboost": xgboost,
    "lightgbm": lightgbm,
    "numba": numba,
    "polars": polars,
}
TITLES = {
    "none": "no other library",
    "numpy": "np.matmul",
    "scipy": "scipy.linalg.blas.sgemm",
    "onnxruntime": "ONNX Runtime, perceptron",
    "torch": "torch.mm",
    "sklearn": "scikit-learn, predict_proba of HistGradientBoostingClassifier",
    "xgboost": "XGBoost, inplace_predict",
    "lightgbm": "LightGBM, predict",
    "numba": "Numba, prange",
    "polars": "Polars, group_by",
}


def _matrices(n):
    return np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32)


def _table():
    """Features and binary targets."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, FEATURES), dtype=np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int32)


def _perceptron():
    """A serialized ONNX model: a perceptron with one hidden layer, which makes 1000 logits."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((512, 1024), dtype=np.float32),
        "w2": rng.standard_normal((1024, 1000), dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["a"]),
            helper.make_node("Relu", ["a"], ["h"]),
            helper.make_node("MatMul", ["h", "w2"], ["logits"]),
        ],
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 512])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, 1000])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
