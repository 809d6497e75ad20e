"""The recipes by name. A new one is a dataclass in a file here, and a line below."""

from mifo_verl.tools.prepare.addition import Addition
from mifo_verl.tools.prepare.recipe import Recipe
from mifo_verl.tools.prepare.recipes.champ import Champ
from mifo_verl.tools.prepare.recipes.own import Own
from mifo_verl.tools.prepare.recipes.procedural import ReasoningGym
from mifo_verl.tools.prepare.recipes.published import DeepMath, Gsm8k, Math, OpenR1, OpenR1Raw, Prime, S1k, Verl
from mifo_verl.tools.prepare.recipes.srl import Srl

_ALL = (OpenR1, OpenR1Raw, Verl, Gsm8k, Math, Champ, DeepMath, S1k, Prime, ReasoningGym, Srl, Own, Addition)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _ALL}
