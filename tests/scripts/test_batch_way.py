"""The way of a batch that the docs show is the one that it takes."""

import re
from pathlib import Path

from scripts.batch_way import ROOT, way

DOCS = (ROOT / "docs" / "architecture.md").read_text()


def test_the_documented_way_of_a_batch_names_every_module_that_it_passes_and_their_number() -> None:
    passed = list(way())
    assert f"These are {len(passed)} files" in DOCS
    section = re.split(r"^## ", DOCS, flags=re.M)[1:]
    (text,) = (part for part in section if part.startswith("The way of a batch"))
    assert [name for name in passed if name not in text and Path(name).stem not in text] == []
