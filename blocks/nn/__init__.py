"""Layers."""

from hybrid.block import Block, HybridBlock

from .activations import ELU, GELU, SELU, Activation, LeakyReLU, PReLU, ReLU6, SiLU, Swish
from .attention import MultiHeadAttention, PositionwiseFFN, TransformerEncoderCell
from .basic import Dense, Dropout, Embedding, Flatten, HybridLambda, Identity, Lambda
from .containers import Concatenate, HybridConcatenate, HybridSequential, Sequential
from .convolution import Conv1D, Conv2D, Conv3D
from .normalization import BatchNorm, GroupNorm, InstanceNorm, LayerNorm
from .pooling import (
    AvgPool1D,
    AvgPool2D,
    AvgPool3D,
    GlobalAvgPool1D,
    GlobalAvgPool2D,
    GlobalAvgPool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
)
from .transposed import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "AvgPool1D",
    "AvgPool2D",
    "AvgPool3D",
    "BatchNorm",
    "Block",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalAvgPool3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GroupNorm",
    "HybridBlock",
    "HybridConcatenate",
    "HybridLambda",
    "HybridSequential",
    "Identity",
    "InstanceNorm",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MultiHeadAttention",
    "PReLU",
    "PositionwiseFFN",
    "ReLU6",
    "Sequential",
    "SiLU",
    "Swish",
    "TransformerEncoderCell",
]
