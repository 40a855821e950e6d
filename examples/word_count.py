"""Count words: the text is scattered over the ranks, counted where it lies, and the counts are added up.

The text is Python's own manual of its keywords, which every Python has at hand.
"""

from __future__ import annotations

import re
from collections import Counter
from pydoc_data.topics import topics

import ippmpi as ipp


def count(lines: list[str]) -> Counter[str]:
    """Count the words of some lines."""
    return Counter(word for line in lines for word in re.findall(r"[a-z]+", line.lower()))


def longest(lines: list[str]) -> str:
    """Return the longest word of some lines."""
    return max(count(lines), key=len)


def main() -> None:
    """Count on all ranks, then here, and compare."""
    text = "\n".join(topics.values()).splitlines()
    with ipp.Cluster(n=4) as rc:
        ranks = rc[:]
        ranks.scatter("lines", text, block=True)
        here = ipp.Reference("lines")  # what each rank has under this name
        parts = ranks.apply_sync(count, here)
        word = max(ranks.apply_sync(longest, here), key=len)

    counts: Counter[str] = sum(parts, Counter())
    print(f"{len(text):,} lines, {counts.total():,} words, {len(counts):,} different; the longest is {word!r}")
    for common, times in counts.most_common(5):
        print(f"  {common:5s} {times:6,} " + " + ".join(str(part[common]) for part in parts))
    assert counts == count(text), "the ranks counted something else"
    assert len(longest(text)) == len(word) == max(map(len, counts))


if __name__ == "__main__":
    main()
