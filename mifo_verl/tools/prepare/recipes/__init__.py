"""The recipes by name. A new one is a dataclass in a file here, and a line below."""

from mifo_verl.tools.prepare.recipe import Recipe
from mifo_verl.tools.prepare.recipes.competition import Math
from mifo_verl.tools.prepare.recipes.gsm8k import Gsm8k
from mifo_verl.tools.prepare.recipes.openr1 import OpenR1
from mifo_verl.tools.prepare.recipes.own import Own
from mifo_verl.tools.prepare.recipes.procedural import ReasoningGym
from mifo_verl.tools.prepare.recipes.sums import Addition
from mifo_verl.tools.prepare.recipes.traces import DeepMath, S1k

_ALL: tuple[type[Recipe], ...] = (OpenR1, Gsm8k, Math, DeepMath, S1k, ReasoningGym, Own, Addition)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _ALL}
