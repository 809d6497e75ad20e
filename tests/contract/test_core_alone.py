"""The core runs without the libraries of the tools: none is imported, and no tool is."""

import os
import subprocess
import sys

TOOLS_ONLY = ("typer", "plotly", "jinja2", "scipy", "openai", "mifo_verl.tools")
CORE = """
import builtins, sys
for name in {blocked}:
    sys.modules[name] = None  # an import of it raises ImportError
real = builtins.__import__

def without_pandas(name, globals=None, *rest, **named):
    if name.split(".")[0] == "pandas" and str((globals or {{}}).get("__name__")).startswith("mifo_verl"):
        raise ImportError("pandas, by " + globals["__name__"])  # verl imports it, and we must not
    return real(name, globals, *rest, **named)

builtins.__import__ = without_pandas
{code}
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    script = CORE.format(blocked=TOOLS_ONLY, code=code)
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, env=os.environ)


MODULES = (
    "train checks.__main__ checks.preflight plugin run.launch verl.trainer verl.worker verl.task_runner cpu.rollout "
    "rewards.math rewards.gym data.bad_rows"
)


def test_the_core_is_imported_and_composes_a_config_without_the_tools():
    imported = "import " + ", ".join(f"mifo_verl.{module}" for module in MODULES.split())
    done = run(f"{imported}\nsys.exit(mifo_verl.train.main(['experiment=quickstart', '--cfg']))")
    assert done.returncode == 0 and "mifo:" in done.stdout, done.stderr[-2000:]
