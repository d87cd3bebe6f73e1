"""The recipes by name."""

from __future__ import annotations

from difflib import get_close_matches

from .pico_lm import RECIPE as PICO_LM
from .pico_sink import RECIPE as PICO_SINK
from .recipe import Recipe

RECIPES = {recipe.name: recipe for recipe in (PICO_LM, PICO_SINK)}


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`; `organism:` may stand before it."""
    bare = name.removeprefix("organism:")
    if bare in RECIPES:
        return RECIPES[bare]
    near = get_close_matches(bare, RECIPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ValueError(f"no recipe is called {bare!r}{hint} There are: {', '.join(RECIPES)}")
