"""What the documentation shows works: its Python, its settings, its commands, its links, its pointers into the code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import click
import pytest
import yaml

from automl.cli import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("automl", "agents", "envs", "compressors", "dashboards", "tests")


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Fenced blocks of one language with the number of their first line; indented ones (in lists) too."""
    found = []
    for match in re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.M | re.S):
        found.append((page.read_text()[: match.start(2)].count("\n") + 1, textwrap.dedent(match[2])))
    return found


def code_of(page: Path) -> list[tuple[str, int]]:
    """The page's Python blocks, each padded with empty lines so that a traceback names the page's lines."""
    return [("\n" * (line - 1) + text, line) for line, text in blocks(page, "python")]


# -- Python ---------------------------------------------------------------------------------------------------------


def test_the_blocks_of_the_api_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "api.md"
    namespace: dict[str, object] = {"__name__": "api_page"}
    sources = code_of(page)
    assert len(sources) >= 8
    for source, _ in sources:
        exec(compile(source, str(page), "exec"), namespace)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"digits", "first", "second"}
    for folder in ("digits-smaller", "regression-smaller"):
        made = {path.name for path in (tmp_path / folder).iterdir()}
        assert made == {"policy.json", "model.pt2", "model.safetensors"}
    ledgers = [(tmp_path / "runs" / name / "trials.jsonl").read_text() for name in ("first", "second")]
    without_times = [re.sub(r'"seconds":\{[^}]*\}', "", ledger) for ledger in ledgers]
    assert without_times[0] == without_times[1], "the resumed search is the one that never stopped"


def test_the_block_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "README.md"
    ((source, _),) = code_of(page)
    # Shorter, and without MLflow, whose tests are elsewhere; everything else as it stands.
    shorter = source.replace('"episodes": 60}', '"episodes": 6}, finetune={"members": 1, "training": {"epochs": 1}}')
    untracked = shorter.replace("splits, config)", "splits, config, place=Place(track=False))")
    assert untracked != shorter != source, "the README's block has changed: change what this test shortens"
    from automl.place import Place

    namespace: dict[str, object] = {"__name__": "readme", "Place": Place}
    exec(compile(untracked, str(page), "exec"), namespace)
    assert (tmp_path / "smaller" / "model.pt2").is_file()


def test_the_example_of_contributing_passes_the_contract_suite(tmp_path):
    ((source, _),) = code_of(ROOT / "CONTRIBUTING.md")
    (tmp_path / "contributing_example.py").write_text(source)
    # A process of its own: what is registered stays registered.
    paths = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "contributing_example"]
    done = subprocess.run(
        [*command, "tests/contracts", "-k", "rescale"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 8, "one for each channel order and treatment of BatchNorm"


# -- settings and files ---------------------------------------------------------------------------------------------


def test_settings_in_yaml_are_valid():
    from automl.config import SearchConfig, parse
    from automl.preflight import check_config

    found = [(page, text) for page in PAGES for _, text in blocks(page, "yaml")]
    assert found
    for page, text in found:
        check_config(parse(SearchConfig, yaml.safe_load(text), page.name))


def test_formats_are_documented_field_by_field():
    from automl.ledger import TrialRecord
    from compressors.policy import CompressionPolicy

    text = (ROOT / "docs" / "automl.md").read_text()
    for heading, model in (("### A line of `trials.jsonl`", TrialRecord), ("### `policy.json`", CompressionPolicy)):
        section = text.partition(heading + "\n")[2].partition("\n#")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.M) == list(model.model_fields), heading


# -- commands -------------------------------------------------------------------------------------------------------


def snippets(page: Path) -> list[str]:
    """Lines of code blocks (fenced or indented) and code within lines; comments and continuations taken care of."""
    text = page.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in re.findall(r"^(?: {4,}|)(?!\|)(\S.*)$", text, re.M)]
    return [*lines, *(" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text))]


def commands() -> list[tuple[str, str]]:
    found = {
        (page.name, re.split(r"\s+#\s", snippet)[0].strip())
        for page in PAGES
        for snippet in snippets(page)
        if re.match(r"(\S*/)?secateur( |$)", snippet)
    }
    return sorted(found)


def all_options() -> set[str]:
    names: set[str] = set()

    def walk(command: click.Command) -> None:
        for parameter in command.params:
            names.update(parameter.opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(click.Context(command)):
                below = command.get_command(click.Context(command), name)
                assert below is not None
                walk(below)

    walk(cli)
    return names | {"--help"}


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_that_are_shown_parse(page, line):
    words = shlex.split(line)[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        below = command.get_command(click.Context(command), name)
        assert below is not None, f"{page}: there is no command {name!r} in {line!r}"
        command = below
    if "--help" in words or isinstance(command, click.Group):
        return
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    try:
        # Parses and converts; does not run the command.
        command.make_context(command.name, list(words), resilient_parsing=not words)
    except click.MissingParameter as error:
        # In running text a command may be named with the options that matter there.
        assert error.param in options and error.param.required, f"{page}: {line!r}: {error.format_message()}"
    except click.ClickException as error:
        pytest.fail(f"{page}: {line!r}: {error.format_message()}")


def test_there_are_commands_to_check():
    shown = {line.split()[1] for _, line in commands() if len(line.split()) > 1}
    assert {"search", "resume", "front", "export", "apply", "report", "track", "profile", "layers"} <= shown


def test_options_that_are_named_exist():
    known = all_options()
    for page in PAGES:
        for snippet in snippets(page):
            if snippet.startswith("--"):
                named = re.findall(r"(?<!\S)--[a-z-]+", snippet)
                assert set(named) <= known, f"{page.name}: {snippet}: no such option"


def test_make_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for snippet in snippets(page):
            if match := re.match(r"make ([a-z-]+)(?:$| +#|;)", snippet):
                assert match[1] in targets, f"{page.name}: {snippet}"


# -- links ----------------------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """The fragment that a heading can be linked by."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    # Code is taken out first: `table[name](x)` is no link. What is left of a link's own text does not matter.
    prose = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}, which does not exist"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.M)
            assert fragment in {anchor(heading) for heading in headings}, f"{page.name}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(rf"`((?:{'|'.join(PACKAGES)})/[\w/]*(?:\.\w+)?)`", page.read_text())
    # CONTRIBUTING walks through making a file that is not there yet.
    absent = [name for name in named if not (ROOT / name).exists() and name != "compressors/repair/rescale.py"]
    assert not absent, f"{page.name} names {absent}"
