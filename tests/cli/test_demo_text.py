"""What a walk-through says by itself: complete in every language, 80 columns wide, and nowhere but in the catalogue."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from string import Formatter
from types import ModuleType

import pytest

from meshsim.cli import columns, demo_text, wire_text
from meshsim.cli.sources import scenarios
from meshsim.network.choice import Choice
from meshsim.walkthrough import Step, read, wording
from meshsim.words import CATALOGUE, LANGUAGES, Words

FOUND = [w for w in map(read, scenarios()) if w is not None]
STEPS = [step for found in FOUND for step in found.spec.steps]
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize("key", CATALOGUE)
def test_every_sentence_is_there_in_every_language(key: str) -> None:
    said = CATALOGUE[key]
    assert len(said) == len(LANGUAGES)
    assert all(said)
    fields = [sorted(name for _, name, _, _ in Formatter().parse(text) if name) for text in said]
    assert all(names == fields[0] for names in fields)


def test_every_walkthrough_and_step_is_worded_in_every_language() -> None:
    lacking = [said.title for said in (*(w.spec for w in FOUND), *STEPS) if not HAN.search(wording(said, "zh").title)]
    lacking += [step.text for step in STEPS if step.text and not HAN.search(wording(step, "zh").text)]
    assert lacking == []


@pytest.mark.parametrize("module", [demo_text, wire_text], ids=["step", "hop picture"])
def test_words_stand_in_the_catalogue_only(module: ModuleType) -> None:
    """A text of two words that is no key of the catalogue is a sentence without a translation."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name != "screen"]  # which `trace --wire` prints
    said = [node for f in functions for node in ast.walk(f) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    documentation = {ast.get_docstring(f, clean=False) for f in functions}
    texts = {node.value for node in said} - documentation - CATALOGUE.keys()
    assert [text for text in texts if re.search(r"[a-z]{3,} [a-z]{2,}", text) and "kubectl" not in text] == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("choice", [Choice("netns", ""), Choice("loopback", ""), Choice("loopback", "no, because of nft")], ids=str)
def test_the_heading_fits(language: str, choice: Choice) -> None:
    for found in FOUND:
        lines = [line for block in demo_text.heading(found, found.initial(), choice, Words(language)) for line in block.splitlines()]
        assert max(map(columns.width, lines)) <= columns.WIDTH
        assert bool(HAN.search(lines[-1])) == (language == "zh")


@pytest.mark.parametrize("step", [s for s in STEPS if s.run], ids=lambda s: s.title)
def test_a_wrapped_command_is_the_command(step: Step) -> None:
    shown = columns.command(step.run, "   $ ").removeprefix("   $ ")
    assert max(map(columns.width, shown.splitlines())) <= columns.WIDTH
    typed = shlex.split(shown.replace("\\\n", " "))
    assert [re.sub(r"\s+", " ", word) for word in typed] == shlex.split(step.run)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a b", ["> a b"]),
        ("", ["> "]),
        ("x" * 100, ["> " + "x" * 78, "  " + "x" * 22]),
        ("字" * 38 + "（甲", ["> " + "字" * 38, "  （甲"]),
        ("字" * 39 + "。甲", ["> " + "字" * 38, "  字。甲"]),
        ("w " * 39 + "字", ["> " + "w " * 38 + "w", "  字"]),
    ],
)
def test_lines_break_where_a_reader_expects(text: str, lines: list[str]) -> None:
    assert columns.fill(text, "> ").splitlines() == lines
