"""Datasets, samplers, the loader of batches, and transforms."""

from . import transforms
from .dataset import ArrayDataset, Dataset, SimpleDataset
from .loader import DataLoader, default_batchify_fn
from .sampler import BatchSampler, FilterSampler, IntervalSampler, RandomSampler, Sampler, SequentialSampler

__all__ = [
    "ArrayDataset",
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "FilterSampler",
    "IntervalSampler",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "SimpleDataset",
    "default_batchify_fn",
    "transforms",
]
