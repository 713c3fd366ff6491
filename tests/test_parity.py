"""Valid input gives torch's value and gradient."""

import warnings

import numpy as np
import pytest
from cases import CASES, FLOATS

import fastloss as fl

torch = pytest.importorskip("torch")
functional = torch.nn.functional

SHARED = [case for case in CASES if hasattr(functional, case.loss)]
cases = pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
floats = pytest.mark.parametrize("dtype", FLOATS, ids=lambda dtype: dtype.__name__)
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-13}


@pytest.fixture(autouse=True)
def one_thread():
    """A team of torch's threads would trouble the tests that fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def close(got, expected, dtype):
    """Within the tolerance of the largest number of an array."""
    expected = np.asarray(expected)
    size = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    np.testing.assert_allclose(got, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * size)


def theirs(loss, arrays, keywords, upstream=None, wrt=()):
    """torch's value, and its gradients by those arguments."""
    tensors = [torch.tensor(a) for a in arrays]
    for name, tensor in zip(loss.operands, tensors, strict=True):
        if name in wrt:
            tensor.requires_grad_()
    options = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in keywords.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kl_div's advice about its mean
        value = getattr(functional, loss.__name__)(*tensors, **options)
    if wrt:
        value.backward(torch.ones_like(value) if upstream is None else torch.tensor(upstream))
    named = dict(zip(loss.operands, tensors, strict=True))
    return value.detach().numpy(), [named[name].grad.numpy() for name in wrt]


@cases
@floats
def test_values_and_gradients(case, dtype):
    loss = getattr(fl, case.loss)
    rng = np.random.default_rng([7, *case.id.encode()])
    for shape in ((40,), (6, 5), (3, 4, 2)):
        arrays = case.arrays(rng, shape, dtype)
        keywords = case.keywords(rng, shape, dtype)
        if case.by_class and "weight" in keywords:
            keywords["weight"] += dtype(0.25)  # a zero weight of all the targets is NaN to both
        for reduction in ("none", "mean", "sum", *(["batchmean"] if case.loss == "kl_div" else [])):
            options = keywords | {"reduction": reduction}
            upstream = rng.normal(size=shape if reduction == "none" else ()).astype(dtype)
            value, gradients = theirs(loss, arrays, options, upstream, loss.differentiable)
            got, slopes = loss.value_and_grad(
                *arrays, **options, grad_output=upstream, wrt=loss.differentiable
            )
            close(got, value, dtype)
            for slope, gradient in zip(slopes, gradients, strict=True):
                assert slope.dtype == gradient.dtype
                close(slope, gradient, dtype)


@pytest.mark.parametrize("loss", [fl.nll_loss, fl.cross_entropy], ids=["nll_loss", "cross_entropy"])
def test_one_row(loss):
    rng = np.random.default_rng(8)
    x, y, weight = rng.normal(size=5), np.array(3), rng.uniform(0.5, 2, 5)
    for reduction in ("none", "mean", "sum"):
        options = {"weight": weight, "reduction": reduction}
        value, (gradient,) = theirs(loss, (x, y), options, wrt=("input",))
        got, slope = loss.value_and_grad(x, y, **options)
        close(got, value, np.float64)
        close(slope, gradient, np.float64)


def test_all_ignored():
    x, y = np.ones((3, 4)), np.full(3, -100)
    for loss in (fl.nll_loss, fl.cross_entropy):
        for reduction in ("none", "mean", "sum"):
            value, (gradient,) = theirs(loss, (x, y), {"reduction": reduction}, wrt=("input",))
            got, slope = loss.value_and_grad(x, y, reduction=reduction)
            np.testing.assert_array_equal(got, value)
            np.testing.assert_array_equal(slope, gradient)


@pytest.mark.parametrize("var_shape", [(4, 3), (4,), (4, 1), (1, 3)])
def test_shared_variances(var_shape):
    rng = np.random.default_rng(9)
    arrays = (*rng.normal(size=(2, 4, 3)), rng.uniform(0.5, 2, var_shape))
    wrt = ("input", "target", "var")
    value, gradients = theirs(fl.gaussian_nll_loss, arrays, {"full": True}, wrt=wrt)
    got, slopes = fl.gaussian_nll_loss.value_and_grad(*arrays, full=True, wrt=wrt)
    close(got, value, np.float64)
    for slope, gradient in zip(slopes, gradients, strict=True):
        close(slope, gradient, np.float64)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 1), (1, 1), ()])
@pytest.mark.parametrize("name", ["weight", "pos_weight"])
def test_broadcast_weights(name, shape):
    rng = np.random.default_rng(10)
    arrays = rng.normal(size=(2, 3)), rng.uniform(size=(2, 3))
    options = {name: rng.uniform(0.5, 2, shape)}
    loss = fl.binary_cross_entropy_with_logits
    value, gradients = theirs(loss, arrays, options, wrt=("input", "target"))
    got, slopes = loss.value_and_grad(*arrays, **options, wrt=("input", "target"))
    close(got, value, np.float64)
    for slope, gradient in zip(slopes, gradients, strict=True):
        close(slope, gradient, np.float64)


def test_kinks_are_torchs():
    """The gradient at a kink, where both sides would do."""
    zero, one = np.zeros(1), np.ones(1)
    calls = [
        (fl.l1_loss, (one, one), {}),
        (fl.smooth_l1_loss, (one, zero), {}),
        (fl.smooth_l1_loss, (one, one), {"beta": 0.0}),
        (fl.huber_loss, (one, zero), {}),
        (fl.hinge_embedding_loss, (one, -one), {}),
        (fl.margin_ranking_loss, (one, one, one), {}),
        (fl.margin_ranking_loss, (one, one, -one), {}),
        (fl.margin_ranking_loss, (one, zero, one), {"margin": 1.0}),
    ]
    for loss, arrays, options in calls:
        _, gradients = theirs(loss, arrays, options, wrt=loss.differentiable)
        slopes = loss.grad(*arrays, **options, wrt=loss.differentiable)
        for slope, gradient in zip(slopes, gradients, strict=True):
            np.testing.assert_array_equal(slope, gradient, err_msg=loss.__name__)


@cases
def test_options_and_defaults_are_torchs(case):
    """Each option has torch's name and default, and criteria those of torch.nn."""
    import inspect

    loss = getattr(fl, case.loss)
    torchs = inspect.signature(getattr(functional, case.loss)).parameters
    ours = loss.__signature__.parameters
    for name, parameter in ours.items():
        if name in ("sample_weight", "out"):
            continue
        assert name in torchs, name
        if parameter.default is not parameter.empty:
            assert parameter.default == torchs[name].default, name
    missing = set(torchs) - set(ours) - {"size_average", "reduce"}
    assert not missing


def test_criteria_are_torchs():
    import inspect

    for name in fl.criteria.__all__:
        theirs = getattr(torch.nn, name, None)
        if theirs is None:
            assert name in ("Criterion", "LogCoshLoss")
            continue
        torchs = inspect.signature(theirs).parameters
        for option, parameter in getattr(fl, name).__signature__.parameters.items():
            if option == "weight" and option not in torchs:  # l1, mse, huber: functional only
                continue
            assert parameter.default == torchs[option].default, (name, option)
