"""The docs say what is there: schemas of the record types, commands, settings, files and tests that exist."""

import re
from pathlib import Path

import pytest

from mifo_verl.cli import COMMANDS
from mifo_verl.tools.schemas import rewritten, schemas
from tests.integration.test_outside_package import PACKAGE

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES += [REPOSITORY / "launch" / "README.md", REPOSITORY / "docker" / "README.md"]


def test_the_schemas_in_the_docs_are_those_of_the_record_types():
    page = (REPOSITORY / "docs" / "results.md").read_text()
    assert page == rewritten(page), "run make schemas"
    assert "| `ledger_sha256` | string |" in schemas()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_names_commands_links_files_and_tests_that_exist(page):
    text = page.read_text()
    assert not {name for name in re.findall(r"`?\bmifo ([a-z]+)\b(?=[ `\n])", _code(text))} - set(COMMANDS)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(
        r"`((?:mifo_verl|tests|docs|trainer_configs|launch|docker)/[\w/.-]+\.(?:py|md|yaml|sh|txt))`", text
    ):
        assert (REPOSITORY / path).exists(), path
    for path, test in re.findall(r"((?:unit|contract|configs|integration)/\w+\.py) :: (\w+)", text):
        assert f"def {test}(" in (REPOSITORY / "tests" / path).read_text(), f"{path} :: {test}"


def _code(text: str) -> str:
    """Code blocks and code spans, where a command stands."""
    return "\n".join(re.findall(r"```\w*\n(.*?)```", text, flags=re.S) + re.findall(r"`(mifo [^`]*)`", text))


def test_the_package_of_the_docs_is_the_one_that_a_test_installs_and_trains_with():
    page = (REPOSITORY / "docs" / "extend.md").read_text()
    missing = [name for name, text in PACKAGE.items() if text.strip() not in page]
    assert missing == []


def test_the_readme_fits_on_its_screen_and_the_docs_are_eight_pages_and_the_evidence():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 120
    names = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    pages = ("start", "methods", "extend", "results", "trust", "architecture", "evidence", "cluster", "performance")
    assert names == {f"{page}.md" for page in pages}
    own = sum(len((REPOSITORY / "docs" / name).read_text().split()) for name in names - {"evidence.md"})
    assert own <= 14_400
