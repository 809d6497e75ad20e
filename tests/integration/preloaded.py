"""What every rank of a test needs, loaded once in the process that the ranks are forks of."""

import datasets  # noqa: F401
import peft  # noqa: F401
from transformers.models.qwen2 import modeling_qwen2  # noqa: F401

import mifo_verl.verl.engine
import mifo_verl.verl.worker  # noqa: F401
from tests.integration.engine_ranks import _quickstart

_quickstart()
