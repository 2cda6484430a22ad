"""What a config leaves to be found when it is resolved: a folder's classes, a model's input. Identities and records hold what was found.

Each function is a resolver: ``${classes_in:${.root}}`` in a config calls ``classes_in``. What a user writes in its place wins.
"""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException


def classes_in(root: str | None) -> int:
    """Return the number of classes of a folder of images."""
    from espalier.data.imagefolder import class_names  # noqa: PLC0415  brings torch

    return len(class_names(root))


def fact_of(key: str, target: str, args: Mapping[str, Any]) -> int:
    """Return ``num_classes`` or ``in_channels`` of the data that a user's function gives."""
    from espalier.from_python import data_facts  # noqa: PLC0415  brings torch

    plain = OmegaConf.to_container(args, resolve=True) if isinstance(args, DictConfig) else args
    assert isinstance(plain, Mapping)
    return data_facts(target, {str(name): value for name, value in plain.items()})[key]


def input_of(key: str, model: Mapping[str, Any] | None, of: int | None = None) -> Any:
    """Return what a model wants of photographs.

    Args:
        key: ``size``; ``resize``, the shorter side before the cut; ``interpolation``; ``mean``; or ``std``.
        model: The config of the model; any but timm's gets ImageNet's usual input.
        of: For ``resize`` the size, for ``mean`` and ``std`` the channels.
    """
    from espalier.models import from_timm  # noqa: PLC0415  brings torch

    given = model or {}
    if given.get("_target_") == "espalier.models.timm_model":
        found = from_timm.input_of(given["name"], image_size=(given.get("args") or {}).get("img_size"))
    else:
        found = from_timm.input_of(None)
    if key == "resize":
        return from_timm.resized(int(of or found["size"]), found["crop"])
    if key in ("mean", "std"):
        numbers = [float(number) for number in found[key]]
        return numbers if of in (None, len(numbers)) else [sum(numbers) / len(numbers)]
    return found[key]


def digest_of(path: str | None) -> str | None:
    """Return the SHA-256 of a file of weights; None for None."""
    from espalier.models.weights import file_digest  # noqa: PLC0415  brings torch

    return file_digest(path)


def share_of(number: int, share: float) -> int:
    """Return a share of a number, rounded down."""
    return int(number * share)


def start_of(model: Mapping[str, Any] | None) -> str:
    """Return whether training starts from weights that are trained already: ``finetune`` or ``scratch``.

    A model from a user's own function counts as trained: its weights are unknown here.
    """
    given = model or {}
    trained = given.get("pretrained") or given.get("checkpoint") or given.get("_target_") == "espalier.from_python.python_model"
    return "finetune" if trained else "scratch"


def register() -> None:
    """Make the functions above known to OmegaConf."""
    for function in (classes_in, fact_of, input_of, digest_of, share_of, start_of):
        OmegaConf.register_new_resolver(function.__name__, function, replace=True)


def explained(error: OmegaConfBaseException) -> ValueError:
    """Return the error of a function above as it was raised, or what OmegaConf says in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ValueError) and not isinstance(cause, OmegaConfBaseException):
            return cause
        cause = cause.__cause__ or cause.__context__
    return ValueError(f"the config does not resolve: {str(error).splitlines()[0]}")
