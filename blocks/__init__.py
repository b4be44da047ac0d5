"""Blocks: layers, losses, initializers, optimizers, metrics, data and the Trainer. Gluon's user-facing API."""

from hybrid.block import Block, HybridBlock
from hybrid.parameter import Constant, DeferredInitializationError, Parameter, ParameterDict

from . import amp, data, init, loss, lr_scheduler, metric, nn, optimizer, rnn, utils
from .trainer import Trainer
from .utils import clip_global_norm, split_and_load, split_data

__all__ = [
    "Block",
    "Constant",
    "DeferredInitializationError",
    "HybridBlock",
    "Parameter",
    "ParameterDict",
    "Trainer",
    "amp",
    "clip_global_norm",
    "data",
    "init",
    "loss",
    "lr_scheduler",
    "metric",
    "nn",
    "optimizer",
    "rnn",
    "split_and_load",
    "split_data",
    "utils",
]
