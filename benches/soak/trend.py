"""Whether a number grew: a straight line through its samples, and the bound that it is held against."""

import statistics
from dataclasses import dataclass

# What is watched: (unit, what growth a process may show over the fitted time: so much, and so much of its median).
# A buffer pool, an allocator and a table of idle connections breathe; what they breathe by is what is allowed.
WATCHED = {
    "resident": ("MB", 3, 0.03),
    "descriptors": ("", 6, 0.05),
    "threads": ("", 1, 0),
    "ring memory": ("MB", 0.1, 0),
}


@dataclass
class Trend:
    """How a number of a process went."""

    process: str
    what: str
    first: float
    median: float
    last: float
    growth: float  # of the line, over the fitted time
    bound: float

    @property
    def holds(self):
        return self.growth <= self.bound


def slope(times, values):
    """Theil and Sen's: the median of the slopes of all pairs, which a few outliers do not move."""
    step = max(1, len(times) // 200)
    times, values = times[::step], values[::step]
    pairs = [(values[b] - values[a]) / (times[b] - times[a]) for b in range(len(times)) for a in range(b) if times[b] > times[a]]
    return statistics.median(pairs) if pairs else 0.0


def trends(samples):
    """Of every process that lived through all samples: [(seconds, {process: {what: value}})]."""
    found = []
    times = [at for at, _ in samples]
    lived = set.intersection(*(set(seen) for _, seen in samples))
    for process in sorted(lived):
        for what, (_, absolute, share) in WATCHED.items():
            values = [seen[process][what] for _, seen in samples]
            median = statistics.median(values)
            edge = max(1, len(values) // 10)
            found.append(Trend(
                process, what, statistics.median(values[:edge]), median, statistics.median(values[-edge:]),
                slope(times, values) * (times[-1] - times[0]), absolute + share * median,
            ))
    return found
