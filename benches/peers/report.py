"""Samples as Markdown, CSV and SVG."""

import csv
import statistics
import time

from measure import WORKLOADS

COLOURS = {"nginx": "#2f8f4e", "haproxy": "#6b7fb5", "floor": "#b0b0b0", "tidegate": "#0b6fa4"}


def _names(samples):
    return list(dict.fromkeys(sample.workload for sample in samples)), list(dict.fromkeys(sample.proxy for sample in samples))


def _of(samples, workload, proxy):
    return [sample for sample in samples if sample.workload == workload and sample.proxy == proxy]


def _spread(values, digits):
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def paired(samples, workload, proxy, against):
    """The ratio of costs within each round."""
    other = {sample.number: sample.cost for sample in _of(samples, workload, against)}
    return [sample.cost / other[sample.number] for sample in _of(samples, workload, proxy) if sample.number in other]


def above_floor(samples, workload, proxy):
    """Microseconds above the floor within each round."""
    floor = {sample.number: sample.cost for sample in _of(samples, workload, "floor")}
    return [sample.cost - floor[sample.number] for sample in _of(samples, workload, proxy) if sample.number in floor]


def tables(samples):
    """A Markdown table for each workload."""
    lines = []
    workloads, proxies = _names(samples)
    for workload in workloads:
        lines += [
            f"### {workload}: {WORKLOADS[workload][0]}", "",
            "| proxy | CPU us a request | against nginx | against haproxy | us above the floor | requests/s | core % | p50 ms | p99 ms | MB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for proxy in proxies:
            own = _of(samples, workload, proxy)
            if not own:
                continue
            cells = [_spread([sample.cost for sample in own], 1)]
            for other in ("nginx", "haproxy"):
                ratios = paired(samples, workload, proxy, other)
                cells.append(_spread(ratios, 2) if ratios and other != proxy else "-")
            above = above_floor(samples, workload, proxy)
            cells.append(_spread(above, 1) if above and proxy != "floor" else "-")
            cells.append(f"{statistics.median(sample.rate for sample in own):.0f}")
            cells.append(f"{statistics.median(sample.busy for sample in own):.0f}")
            cells.append(f"{statistics.median(sample.p50 for sample in own):.2f}")
            cells.append(f"{statistics.median(sample.p99 for sample in own):.2f}")
            cells.append(f"{max(sample.resident for sample in own):.0f}")
            lines.append(f"| {proxy} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def summary(samples):
    return "\n".join(tables(samples))


def write(directory, name, facts, samples, options):
    """Writes the three files; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"{time.strftime('%Y-%m-%d', time.gmtime())}-{name}"
    markdown, table, drawing = (stem.with_suffix(suffix) for suffix in (".md", ".csv", ".svg"))
    lines = [
        f"# Side by side: {facts['date']}", "",
        f"{options.rounds} interleaved rounds of {options.seconds} s a proxy and workload; one worker each, the proxy on CPU 0, wrk and the",
        "backend on CPU 1, over loopback. Figures are the median over the rounds with [smallest-largest]; ratios and differences",
        "are formed within a round. Peers log nothing; Tidegate writes its access log and counts its metrics, and the CPU of all",
        "its threads is included. `benches/peers/run` repeats this.", "",
        f"![CPU a request]({drawing.name})", "",
        *tables(samples),
        "## The machine", "", "| fact | value |", "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in facts.items()), "",
    ]
    markdown.write_text("\n".join(lines))
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["workload", "proxy", "round", "requests", "cpu_us_per_request", "requests_per_s", "core_percent", "p50_ms", "p99_ms", "rss_mb"])
        for sample in samples:
            writer.writerow([
                sample.workload, sample.proxy, sample.number, sample.requests, f"{sample.cost:.3f}", f"{sample.rate:.1f}",
                f"{sample.busy:.1f}", f"{sample.p50:.3f}", f"{sample.p99:.3f}", f"{sample.resident:.1f}",
            ])
    drawing.write_text(_draw(samples))
    return [markdown, table, drawing]


def _draw(samples):
    """Bars of CPU a request by workload and proxy, with whiskers from smallest to largest."""
    workloads, proxies = _names(samples)
    bar, gap, height, left, bottom = 26, 30, 260, 50, 46
    top_value = max(sample.cost for sample in samples) * 1.08
    width = left + sum(gap + bar * sum(bool(_of(samples, workload, proxy)) for proxy in proxies) for workload in workloads) + gap
    scale = height / top_value
    base = height + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{base + bottom}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{base + bottom}" fill="#ffffff"/>',
        f'<text x="{left}" y="18" font-size="13">CPU microseconds a request (median, smallest to largest)</text>',
    ]
    step = max(1, round(top_value / 6 / 5) * 5)
    for value in range(0, int(top_value) + 1, step):
        y = base - value * scale
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 10}" y2="{y:.1f}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    x = left + gap / 2
    for workload in workloads:
        start = x
        for proxy in proxies:
            own = [sample.cost for sample in _of(samples, workload, proxy)]
            if not own:
                continue
            middle, low, high = statistics.median(own), min(own), max(own)
            parts.append(
                f'<rect x="{x:.1f}" y="{base - middle * scale:.1f}" width="{bar - 4}" height="{middle * scale:.1f}" fill="{COLOURS.get(proxy, "#888888")}">'
                f"<title>{proxy}, {workload}: {middle:.1f} us</title></rect>"
            )
            centre = x + (bar - 4) / 2
            parts.append(f'<line x1="{centre:.1f}" y1="{base - low * scale:.1f}" x2="{centre:.1f}" y2="{base - high * scale:.1f}" stroke="#333333"/>')
            x += bar
        parts.append(f'<text x="{(start + x - 4) / 2:.1f}" y="{base + 16}" text-anchor="middle">{workload}</text>')
        x += gap
    x = left
    for proxy in proxies:
        parts.append(f'<rect x="{x}" y="{base + 26}" width="10" height="10" fill="{COLOURS.get(proxy, "#888888")}"/>')
        parts.append(f'<text x="{x + 14}" y="{base + 35}">{proxy}</text>')
        x += 90
    return "\n".join([*parts, "</svg>", ""])
