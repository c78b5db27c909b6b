"""What the values of a graph's inputs may be, where the bundle's manifest says so.

In: a manifest, and arrays whose types and shapes are right. Out: nothing, or an error that names
the value. ONNX counts negative indices from a table's end: without this a token or a code of -1 is
computed as the table's last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from export.manifest import Manifest
from serving.errors import InvalidRequestError, RefusedInputsError
from serving.models.datatypes import Array

TOKENS, CODES = "input_ids", "codes"


@dataclass(frozen=True, slots=True)
class Values:
    """What is known of a graph's inputs.

    tokens: the most that the bundle's tokenizer makes of a text; None: its inputs are no tokens.
    sizes: how many codes there are, by column; empty: its inputs are no codes.
    """

    tokens: int | None = None
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest, graph: str) -> "Values":
        """What a manifest says of one of its graphs."""
        shapes = {spec.name: spec.shape for spec in manifest.graphs[graph].inputs}
        tokenizer, sizes = manifest.metadata.get("tokenizer"), manifest.metadata.get("sizes")
        most = tokenizer.get("max_length") if isinstance(tokenizer, Mapping) else None
        known = isinstance(sizes, list) and all(isinstance(size, int) for size in sizes)
        columns = tuple(sizes) if isinstance(sizes, list) and known else ()
        return cls(
            most if isinstance(most, int) and TOKENS in shapes else None,
            columns if shapes.get(CODES, ())[1:] == (len(columns),) else (),
        )

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raises InvalidRequestError for a value that stands for nothing."""
        if self.tokens is not None and (least := int(inputs[TOKENS].min())) < 0:
            raise InvalidRequestError(f"input {TOKENS!r}: expected tokens from 0 on, found {least}")
        if self.sizes:
            codes = inputs[CODES]
            wrong = np.argwhere((codes < 0) | (codes >= np.asarray(self.sizes)))
            if len(wrong):
                row, column = wrong[0].tolist()
                raise InvalidRequestError(
                    f"input {CODES!r}: row {row}, column {column}: expected 0 to "
                    f"{self.sizes[column] - 1}, found {codes[row, column]}"
                )

    def explain(self, error: RefusedInputsError, inputs: Mapping[str, Array]) -> RefusedInputsError:
        """What the runtime refused, with what may be why."""
        found = 0 if self.tokens is None else inputs[TOKENS].shape[-1]
        if self.tokens is None or found <= self.tokens:
            return error
        return RefusedInputsError(
            f"texts of this bundle have at most {self.tokens} tokens, these {found}: {error.detail}"
        )
