"""Print one marked code block of a Markdown file, so that CI runs what the README says.

A block is marked by a comment on the line before its fence:

    <!-- block: NAME -->
    ```bash
    ...
    ```

Usage: ``python ci/readme_block.py NAME [FILE]``; FILE is README.md by default.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def block(text: str, name: str) -> str:
    """The content of the one block of `text` that is marked `name`."""
    pattern = rf"^<!-- block: {re.escape(name)} -->\n```\w*\n(.*?)^```$"
    found: list[str] = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise ValueError(f"expected one code block marked '<!-- block: {name} -->'; found {len(found)}")
    return found[0]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        sys.stdout.write(
            block(Path(*(sys.argv[2:] or ["README.md"])).read_text(encoding="utf-8"), sys.argv[1])
        )
    except (OSError, ValueError) as error:
        sys.exit(f"readme_block: {error}")
