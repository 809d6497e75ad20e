"""The command ``mifo``: one name for everything that a user starts. Settings are ``key=value``, as Hydra writes them.

Nothing heavy is imported before a command needs it: ``--help`` of every command answers in under a second.
"""

import ast
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import typer

PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Command:
    """One command: the module whose ``main`` takes its arguments and returns the exit code, and one line about it."""

    module: str
    line: str
    first: tuple[str, ...] = ()
    """What ``main`` is given before the user's own arguments."""
    takes_settings: bool = False
    """Whether its settings are those of a run, so that its help lists experiments, methods and parts."""

    def run(self, arguments: list[str]) -> int:
        """Run it, or print its help; returns the exit code."""
        asked = bool({"-h", "--help"} & set(arguments))
        text = self.usage() if asked else None
        if text is not None:
            print(text)
        elif code := int(import_module(self.module).main(["--help"] if asked else [*self.first, *arguments])):
            return code
        if asked and self.takes_settings:
            print(f"\n{choices(arguments)}")
        return 0

    def usage(self) -> str | None:
        """The text USAGE of its module, read without importing it; None if the module puts it together itself."""
        file = PACKAGE.joinpath(*self.module.split(".")[1:]).with_suffix(".py")
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "USAGE":
                return str(node.value.value) if isinstance(node.value, ast.Constant) else None
        return None


COMMANDS = {
    "train": Command("mifo_verl.train", "train a model, or go on (trainer.resume_mode=auto)", takes_settings=True),
    "check": Command("mifo_verl.checks.__main__", "check a run before anything starts", takes_settings=True),
    "methods": Command("mifo_verl.tools.methods", "every method side by side, and what goes with what"),
    "report": Command("mifo_verl.tools.report.__main__", "one HTML file about one run or several"),
    "ledger": Command("mifo_verl.tools.ledger.__main__", "the data that a run used, verified"),
    "inspect": Command("mifo_verl.tools.inspect.__main__", "which weights were frozen, which tokens were kept"),
    "analyze": Command("mifo_verl.tools.analyze.__main__", "updates, pruning, subspaces and overlaps of checkpoints"),
    "evaluate": Command("mifo_verl.tools.evaluate.__main__", "a model's accuracy on benchmarks"),
    "compare": Command("mifo_verl.tools.evaluate.__main__", "what can be claimed of two evaluations", ("compare",)),
    "sweep": Command("mifo_verl.tools.sweep.__main__", "methods x seeds x settings, and a table", takes_settings=True),
    "data": Command("mifo_verl.tools.prepare.__main__", "make a data set or a small model"),
    "demonstrations": Command("mifo_verl.tools.demonstrations.__main__", "let a model write missing demonstrations"),
    "score": Command("mifo_verl.tools.score.__main__", "the reward of lines, from stdin to stdout"),
    "stacks": Command("mifo_verl.tools.stacks", "the stacks of all processes of a run that hangs"),
    "export": Command("mifo_verl.tools.export", "a checkpoint as a Hugging Face folder"),
}

_GROUPS = ("experiment", "method", "rl", "task", "hardware")


def choices(arguments: list[str]) -> str:
    """The files of every group that a setting can choose, a line a group, in the folders that a run would look in."""
    from mifo_verl.compose import config_folders

    folders = config_folders(arguments)
    parts = {f"mifo/{group.name}" for folder in folders for group in (folder / "mifo").glob("*/")}
    lines = []
    for group in (*_GROUPS, *sorted(parts)):
        names = {file.stem for folder in folders for file in (folder / group).glob("*.yaml")}
        lines.append(f"  {group + '=':<22} {', '.join(sorted(names))}")
    return "choices, as <group>=<name>:\n" + "\n".join(lines)


app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback(epilog="mifo <command> --help tells its settings.")
def mifo() -> None:
    """RL interleaved with SFT, on verl."""


def _add(name: str, command: Command) -> None:
    passes_all = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(name, help=command.line, add_help_option=False, context_settings=passes_all)
    def run(context: typer.Context) -> None:
        raise typer.Exit(command.run(context.args))


for _name, _command in COMMANDS.items():
    _add(_name, _command)


def main() -> None:
    """The console script."""
    app(prog_name="mifo")


def old_name(old: str, command: str) -> None:
    """``python -m mifo_verl.<old>``, which works for one release and says the new line. Ends the process."""
    print(f"python -m mifo_verl.{old} is now: mifo {command}", file=sys.stderr)
    sys.exit(COMMANDS[command].run(sys.argv[1:]))


if __name__ == "__main__":
    main()
