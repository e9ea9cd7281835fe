"""The documents: links lead somewhere, commands exist, names are real."""

import re
from pathlib import Path

import pytest

from edgekit.cli import main

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
)


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(place), f"{page.name}: {place.name} has no heading #{anchor}"


def test_the_list_of_pages_names_each_once():
    listed = (ROOT / "README.md").read_text("utf-8").partition("\n## More\n")[2]
    targets = re.findall(r"\]\(([^)\s]+)\)", listed)
    assert len(targets) > 20
    assert sorted(targets) == sorted(set(targets))


def commands():
    """Yield every edgekit command line in the documents' code blocks."""
    for page in PAGES:
        for block in re.findall(
            r"^```(?:sh|console)?\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
        ):
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines():
                if line.startswith("edgekit "):
                    yield pytest.param(line.split("#")[0].split(), id=f"{page.name}:{line[:50]}")


@pytest.mark.parametrize("words", list(commands()))
def test_commands_have_the_verbs_and_options_that_the_documents_say(words, capsys):
    assert main([words[1], "--help"]) == 0
    text = capsys.readouterr().out
    for word in words[2:]:
        if word.startswith("-") and word != "-":
            assert re.search(rf"(?<!\S){re.escape(word)}\b", text), f"{words[1]} has no {word}"


def test_every_verb_and_every_option_of_convert_is_documented(capsys):
    documents = "".join(page.read_text("utf-8") for page in PAGES)
    for file in sorted((ROOT / "edgekit" / "cli").glob("[a-z]*.py")):
        assert f"edgekit {file.stem}" in documents, f"no document mentions edgekit {file.stem}"
    main(["convert", "--help"])
    for option in set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)):
        if option not in ("--help", "--output"):
            assert option in documents, f"no document mentions {option}"


def test_the_modules_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for name in re.findall(r"`(edgekit/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name
