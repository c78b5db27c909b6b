"""From what the command line names to a `ModelSource`: a folder, or a function of yours.

In: `FOLDER`, `package.module:function`, or the name of a model that the package carries. Out:
whatever the family's reader gives.
"""

import importlib
from pathlib import Path

from export import shipped
from export.errors import SourceError
from export.sources.folders import missing
from export.sources.huggingface import read_json
from export.sources.image import DUAL, IMAGE_ONLY
from export.sources.source import ModelSource

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
KINDS = ("image_encoder", "text_encoder")


def open_source(spec: str, kind: str | None) -> ModelSource:
    """Open a source.

    Args:
        kind: which tower of a dual encoder is meant.

    Raises:
        SourceError: nothing there, an unknown family, or pickled weights.
    """
    if spec in shipped.NAMES:
        return shipped.read(spec)
    path = Path(spec)
    if path.is_dir():
        return _open_folder(path.resolve(), kind)
    if path.suffix in _PICKLES:
        raise SourceError(
            f"{spec}: pickled weights can run code as they are read and are refused; save the "
            "model as a folder with safetensors (save_pretrained)"
        )
    if ":" in spec and not path.exists():
        return _call(spec)
    raise missing(spec)


def _open_folder(folder: Path, kind: str | None) -> ModelSource:
    from export.sources import dual, image, text

    if not (folder / "config.json").is_file():
        raise SourceError(
            f"{folder}: expected a Hugging Face folder (config.json and *.safetensors, as "
            "save_pretrained writes it), found no config.json"
        )
    family = str(read_json(folder / "config.json").get("model_type"))
    if family in DUAL:
        if kind not in KINDS:
            raise SourceError(f"{folder} has two towers: say which with --kind {'|'.join(KINDS)}")
        is_image = kind == "image_encoder"
        return image.read_image_encoder(folder) if is_image else dual.read_text_tower(folder)
    if family in IMAGE_ONLY:
        return image.read_image_encoder(folder)
    if (folder / "modules.json").exists() or family in text.BARE_FAMILIES:
        return text.read_text_encoder(folder)
    known = sorted((*DUAL, *IMAGE_ONLY, *text.BARE_FAMILIES))
    raise SourceError(
        f"{folder} is of family {family!r}; known are {known}, and any module of yours through "
        "`package.module:function` (docs/bring_your_own_model.md)"
    )


def _call(spec: str) -> ModelSource:
    module_name, _, function_name = spec.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise SourceError(f"{spec} cannot be imported: {error}") from error
    source = function()
    if not isinstance(source, ModelSource):
        raise SourceError(f"{spec} returned {type(source).__name__}, expected a ModelSource")
    return source
