"""Parts of a picture that have nothing to do with each other: which they are, and how they are packed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["pack", "parts"]


def parts(count: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The boxes, by which of them are connected."""
    leader = list(range(count))

    def find(n: int) -> int:
        while leader[n] != n:
            leader[n] = leader[leader[n]]
            n = leader[n]
        return n

    for a, b in edges:
        one, other = sorted((find(a), find(b)))
        leader[other] = one
    parts: dict[int, list[int]] = {}
    for n in range(count):
        parts.setdefault(find(n), []).append(n)
    return list(parts.values())


def pack(sizes: Sequence[tuple[float, float]], wide: float, gap: float) -> tuple[list[tuple[float, float]], float, float]:
    """Upper left corners for rectangles, and the size of it all: large ones first, each as high up as it goes, then as far left."""
    area = sum((width + gap) * (height + gap) for width, height in sizes)
    across = max([min(wide, (1.6 * area) ** 0.5), *(width for width, _ in sizes)], default=0.0) + gap
    corners = [(0.0, 0.0)] * len(sizes)
    skyline: list[tuple[float, float]] = [(0.0, 0.0)]  # from this x on, this y is free
    for n in sorted(range(len(sizes)), key=lambda n: -sizes[n][1]):
        width, height = sizes[n][0] + gap, sizes[n][1] + gap
        y, x = min((max(_under(skyline, x, width)), x) for x, _ in skyline if x + width <= across + 0.01)
        corners[n] = (x, y)
        end = next(reversed([level for start, level in skyline if start <= x + width]))
        skyline = [one for one in skyline if one[0] < x or one[0] >= x + width] + [(x, y + height)]
        if all(start != x + width for start, _ in skyline) and x + width < across:
            skyline.append((x + width, end))
        skyline.sort()
    right = max((x + width for (x, _), (width, _) in zip(corners, sizes, strict=True)), default=0.0)
    bottom = max((y + height for (_, y), (_, height) in zip(corners, sizes, strict=True)), default=0.0)
    return corners, right, bottom


def _under(skyline: list[tuple[float, float]], x: float, width: float) -> Iterable[float]:
    """The levels of the skyline between x and x + width."""
    for n, (start, level) in enumerate(skyline):
        end = skyline[n + 1][0] if n + 1 < len(skyline) else float("inf")
        if start < x + width and end > x:
            yield level
