"""What the READMEs show as Python is Python, and the first example is a program that runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import catga

ROOT = Path(__file__).parents[2]
BLOCKS = {
    f"{path.relative_to(ROOT)}-{number}": block
    for path in (ROOT / "README.md", *sorted(ROOT.glob("catga-*/README.md")))
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL), 1
    )
}


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_shown_as_python_compiles(name: str) -> None:
    compile(BLOCKS[name], name, "exec", dont_inherit=True)


def test_the_first_example_is_a_program(tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(BLOCKS["README.md-1"])
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "booked pay-456"


@pytest.mark.parametrize("name", BLOCKS)
def test_what_an_example_imports_is_there(name: str) -> None:
    for node in ast.walk(ast.parse(BLOCKS[name])):
        if isinstance(node, ast.ImportFrom) and node.module == "catga":
            for alias in node.names:
                assert hasattr(catga, alias.name), alias.name
