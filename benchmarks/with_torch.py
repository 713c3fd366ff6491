"""PyTorch, eager: forward, and forward with backward."""

import math
import warnings

import torch
from torch.nn import functional

from benchmarks import with_numpy

warnings.simplefilter("ignore")  # kl_div warns about "mean" on every call


def log_cosh_loss(input, target):
    """Not in PyTorch; this is what its users write."""
    d = input - target
    return (d + functional.softplus(-2 * d) - math.log(2)).mean()


def ctc_loss_with_logits(logits, *arrays):
    return functional.ctc_loss(functional.log_softmax(logits, dim=2), *arrays)


def sigmoid_focal_loss(input, target):
    """As in torchvision."""
    p = torch.sigmoid(input)
    entropy = functional.binary_cross_entropy_with_logits(input, target, reduction="none")
    wrong = 1 - (p * target + (1 - p) * (1 - target))
    return ((0.25 * target + 0.75 * (1 - target)) * entropy * wrong**2).mean()


def tweedie_deviance_loss(input, target, power=0.0):
    if power == 0:
        return functional.mse_loss(input, target)
    a, b = 2 - power, 1 - power
    half = target.pow(a) / (a * b) - target * input.pow(b) / b + input.pow(a) / a
    return 2 * half.mean()


def start(threads):
    torch.set_num_threads(threads)
    return f"{torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"


def tensor(x):
    if x.dtype.name == "bfloat16":  # not a dtype of NumPy itself
        return torch.tensor(x.view("int16")).view(torch.bfloat16)
    return torch.tensor(x)


def array(tensor):
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view("bfloat16")
    return tensor.numpy()


def mean_of(name):
    """The function of this module or of PyTorch, or else the mean of the one of `with_numpy`."""
    function = globals().get(name) or getattr(functional, name, None)
    if function is not None:
        return function
    formula = getattr(with_numpy, name)
    return lambda *arrays, **options: formula(*arrays, **options, xp=torch)[0].mean()


def products(cell, arrays, options, compiled=lambda f: f):
    loss = compiled(mean_of(cell.loss))
    inputs = [tensor(x) for x in arrays]
    options = {k: v if isinstance(v, float) else tensor(v) for k, v in options.items()}
    leaves = [x.clone().requires_grad_() for x in inputs[: cell.spec.wrt]]
    arguments = leaves + inputs[len(leaves) :]

    def value():
        return loss(*inputs, **options)

    def gradient():
        for leaf in leaves:
            leaf.grad = None
        value = loss(*arguments, **options)
        value.backward()
        return value, leaves

    return {"value": value, "gradient": gradient}


def numbers(result):
    if not isinstance(result, tuple):
        return result.item(), []
    value, leaves = result
    return value.item(), [array(leaf.grad) for leaf in leaves]
