"""Which layer and which kind of matrix a parameter belongs to, by its name in a transformers model."""

import re

KINDS = ("embedding", "q", "k", "v", "o", "gate", "up", "down", "norm", "head", "other")
"""``other`` is what no rule names: fused projections, routers, convolutions."""

_RULES: tuple[tuple[str, str], ...] = (
    ("norm", r"norm|\bln_|layernorm"),
    ("embedding", r"embed|\bwte\b|\bwpe\b"),
    ("head", r"lm_head|\bscore\b"),
    ("q", r"\bq_proj\b"),
    ("k", r"\bk_proj\b"),
    ("v", r"\bv_proj\b"),
    ("o", r"\bo_proj\b"),
    ("gate", r"\bgate_proj\b"),
    ("up", r"\bup_proj\b"),
    ("down", r"\bdown_proj\b"),
)
_LAYER = re.compile(r"(?:layers|blocks|h)\.(\d+)\.")


def kind_of(name: str) -> str:
    """The kind of matrix; a bias is of its matrix's kind."""
    return next((kind for kind, rule in _RULES if re.search(rule, name)), "other")


def layer_of(name: str) -> str:
    """The layer's number, or, outside of the layers, the kind (the final norm is ``norm``)."""
    found = _LAYER.search(name)
    return found.group(1) if found else kind_of(name)


def in_order(layers: list[str]) -> list[str]:
    """Embedding first, the layers by number, then the final norm, the head and the rest; each once."""
    places = {"embedding": -1, "norm": 1 << 30, "head": (1 << 30) + 1, "other": (1 << 30) + 2}
    return sorted(set(layers), key=lambda layer: int(layer) if layer.isdigit() else places[layer])
