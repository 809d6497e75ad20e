"""The recipes by name. A new one is a dataclass in a file here, and a line below."""

from mifo_verl.tools.prepare.addition import Addition
from mifo_verl.tools.prepare.recipe import Recipe
from mifo_verl.tools.prepare.recipes.chains import OpenR1Raw, Prime
from mifo_verl.tools.prepare.recipes.champ import Champ
from mifo_verl.tools.prepare.recipes.competition import Math
from mifo_verl.tools.prepare.recipes.gsm8k import Gsm8k
from mifo_verl.tools.prepare.recipes.openr1 import OpenR1, Verl
from mifo_verl.tools.prepare.recipes.own import Own
from mifo_verl.tools.prepare.recipes.procedural import ReasoningGym
from mifo_verl.tools.prepare.recipes.srl import Srl
from mifo_verl.tools.prepare.recipes.traces import DeepMath, S1k

_ALL: tuple[type[Recipe], ...] = (
    OpenR1,
    OpenR1Raw,
    Verl,
    Gsm8k,
    Math,
    Champ,
    DeepMath,
    S1k,
    Prime,
    ReasoningGym,
    Srl,
    Own,
    Addition,
)
RECIPES: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in _ALL}
