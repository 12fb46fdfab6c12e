"""Generated parts of pages, between the markers ``<!-- begin NAME -->`` and ``<!-- end NAME -->``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["write_sections"]


def write_sections(page: Path, sections: Mapping[str, str]) -> None:
    """Put each text, by the name of its markers, in the place of what stands between them."""
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{content}\n{end}{after}"
    page.write_text(text, encoding="utf-8")
