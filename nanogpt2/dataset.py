"""The training guide's path to `nanogpt2.tokens.dataset`."""

from nanogpt2.tokens.dataset import CharDataset, Dataset, TokenDataset

__all__ = ["CharDataset", "Dataset", "TokenDataset"]
