"""The argument MODEL of a verb with its options, and the model that they name."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..data.errors import UserError

if TYPE_CHECKING:
    from .models import Model


def add_model(parser: argparse.ArgumentParser) -> None:
    """MODEL, and how it is loaded and fed."""
    known = "hub id, local folder, or organism:NAME (`headatlas models` lists those)"
    parser.add_argument("model", metavar="MODEL", help=known)
    add_loading(parser)
    parser.add_argument(
        "--bos", choices=("default", "force", "none"), default="default", help="beginning-of-sequence token"
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How MODEL is loaded."""
    parser.add_argument("--revision", help="revision of a hub model")
    parser.add_argument("--dtype", default="auto", help="weights in float32, bfloat16, ... (default: as stored)")
    parser.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")


def load_model(args: argparse.Namespace) -> Model:
    """The model that the arguments name, loaded without the bars and warnings of transformers."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    from ..kernels.dispatch import BackendError, choose, forced
    from .loading import load

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        forced()
        model = load(
            args.model,
            revision=args.revision,
            dtype=args.dtype,
            device=args.device,
            trust_remote_code=args.trust_remote_code,
        )
        choose(model.device)
    except BackendError as error:
        raise UserError(str(error)) from None
    return model
