"""Stands in for sgl-kernel, which has no CPU build on the package index, for a tiny model on torch's own operators.

Every name resolves to a function that raises when it is called: with the torch_native attention and the pytorch sampling
backends none is. The PD code of SGLang 0.5.23 assumes CUDA in a few places (pinned host memory, events, streams); without
a GPU those become harmless here.
"""

import torch

__version__ = "0.0.0+cpu"
__path__ = []


def _missing(name):
    def call(*args, **kwargs):
        raise NotImplementedError(f"sgl_kernel.{name} has no CPU build")
    call.__name__ = name
    return call


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _missing(name)


def _without_pinning(function):
    def call(*args, **kwargs):
        kwargs.pop("pin_memory", None)
        return function(*args, **kwargs)
    return call


class _Event:
    def __init__(self, *args, **kwargs):
        pass

    def record(self, *args, **kwargs):
        pass

    def synchronize(self):
        pass

    def wait(self, *args, **kwargs):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        return 0.0


class _Stream:
    cuda_stream = 0

    def __init__(self, *args, **kwargs):
        pass

    def synchronize(self):
        pass

    def wait_stream(self, *args):
        pass

    def wait_event(self, *args):
        pass

    def record_event(self, *args):
        return _Event()

    def query(self):
        return True

    def __enter__(self):
        return self

    def __exit__(self, *args):
        return False


if not torch.cuda.is_available():
    for _name in ("empty", "zeros", "ones", "full", "tensor", "empty_like", "zeros_like"):
        setattr(torch, _name, _without_pinning(getattr(torch, _name)))
    torch.Tensor.pin_memory = lambda self, *args, **kwargs: self
    torch.cuda.Event = _Event
    torch.cuda.current_stream = lambda *args, **kwargs: _Stream()
