"""A copy of a model with another RoPE base, window or chat template, as the paper starts from; the weights are shared."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from mifo_verl.errors import require
from mifo_verl.tools.evaluate.templates import check_template, fill

_ASSISTANT = "<|im_start|>assistant\n"
_WEIGHTS = (".safetensors", ".bin")


def make_model(
    model: str, out: str, rope_theta: str = "", max_position_embeddings: str = "", template: str = ""
) -> None:
    """Make the folder, which holds all that the model's has. Weights are hard links if the file system allows it.

    Raises ValueError if the model is not there, ``out`` is not empty, or a setting is none.
    """
    source, folder = _folder(model), Path(out).expanduser()
    empty = not folder.exists() or not any(folder.iterdir())
    require(empty, "out", out, "a new or an empty folder", "choose another one")
    config = json.loads((source / "config.json").read_text())
    if rope_theta:
        theta = _number("rope_theta", rope_theta)
        _set_theta(config, theta)
    if max_position_embeddings:
        config["max_position_embeddings"] = int(_number("max_position_embeddings", max_position_embeddings))
    jinja = chat_template(template) if template else None
    shutil.copytree(source, folder, dirs_exist_ok=True, copy_function=_share, ignore=shutil.ignore_patterns(".*"))
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
        settings = folder / "tokenizer_config.json"
        said = json.loads(settings.read_text()) if settings.exists() else {}
        said.pop("chat_template", None)  # which older models have there, and which would be read too
        settings.write_text(json.dumps(said, indent=2) + "\n")
    print(folder)


def chat_template(name: str) -> str:
    """A text template of the evaluation as a chat template, so that training asks as the evaluation does.

    It has a system message of its own and refuses another. Raises ValueError on an unknown name.
    """
    check_template(name)
    before, after = fill(name, "\0").split("\0")
    opens = _ASSISTANT if after.endswith(_ASSISTANT) else ""
    after = after.removesuffix(opens) if opens else after
    cure = f"chat template {name} has a system message of its own; prepare the data with system=none"
    return "".join(
        (
            "{%- for message in messages %}",
            "{%- if message['role'] == 'user' %}",
            f"{{{{- {json.dumps(before)} + message['content'] + {json.dumps(after)} }}}}",
            "{%- elif message['role'] == 'assistant' %}",
            f"{{{{- {json.dumps(opens)} + message['content'] + eos_token }}}}",
            "{%- else %}",
            f"{{{{- raise_exception({json.dumps(cure)}) }}}}",
            "{%- endif %}",
            "{%- endfor %}",
            f"{{%- if add_generation_prompt %}}{{{{- {json.dumps(opens)} }}}}{{%- endif %}}" if opens else "",
        )
    )


def _set_theta(config: dict[str, Any], theta: float) -> None:
    """The RoPE base where the model reads it: in ``rope_parameters`` if they are there, else beside."""
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        rope["rope_theta"] = theta
        config.pop("rope_theta", None)
    else:
        config["rope_theta"] = theta


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    require(number > 0, name, text, "a number above 0", "the paper's values are 40000 and 16384")
    return number


def _folder(model: str) -> Path:
    """The model's folder, from the hub's cache or the hub if it is a name there."""
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    is_name = model.count("/") == 1 and not path.exists()
    require(is_name, "model", model, "a Hugging Face folder or a name on the hub", "check the path")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model))


def _share(source: str, target: str) -> None:
    if Path(source).suffix in _WEIGHTS:
        try:
            os.link(Path(source).resolve(), target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)
