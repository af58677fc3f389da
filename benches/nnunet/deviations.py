"""What every comparison prints: one line for each thing compared, `name`, largest deviation and limit, tab-separated.

A deviation above its limit means that the two programs did not do the same work, so that their times say nothing.
"""


class Deviations:
    """The largest deviation of each thing that is compared."""

    def __init__(self):
        self._largest = {}

    def add(self, name, deviation, limit):
        """Notes one deviation; NaN counts as infinite."""
        deviation = float(deviation)
        if deviation != deviation:
            deviation = float("inf")
        previous, _ = self._largest.get(name, (0.0, limit))
        self._largest[name] = (max(previous, deviation), limit)

    def same(self, name, first, second):
        """Notes whether two things are equal, which they have to be; those that are not are told on standard error."""
        if first != second:
            import sys

            print(f"{name}: nnU-Net has {first}, nnflow has {second}", file=sys.stderr)
        self.add(name, 0.0 if first == second else 1.0, 0.0)

    def report(self):
        """Prints everything."""
        for name, (deviation, limit) in self._largest.items():
            print(f"{name}\t{deviation:.6g}\t{limit:.6g}")


def relative(first, second):
    """The distance of two numbers in units of the larger one."""
    scale = max(abs(first), abs(second))
    return 0.0 if first == second else abs(first - second) / scale
