"""Ranges of packet numbers."""


def runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Ascending, disjoint ranges of a set of numbers."""
    out: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if out and out[-1][1] == number:
            out[-1] = out[-1][0], number + 1
        else:
            out.append((number, number + 1))
    return out
