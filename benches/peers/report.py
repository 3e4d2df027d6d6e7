"""Samples as Markdown, CSV and SVG."""

import csv
import statistics
import time

import idle
import targets
from targets import above_floor, of, paired, spread
from workloads import WORKLOADS

COLOURS = {
    "nginx": "#2f8f4e", "nginx-full": "#7fbf8e", "haproxy": "#6b7fb5", "floor": "#b0b0b0", "tidegate": "#0b6fa4",
    "h2o": "#c98f2b", "caddy": "#8a5fb0", "envoy": "#b04a6f", "pingora": "#c2553a",
}


IDLE = (
    f"Growth of a proxy just started over {idle.COUNTED} connections after the first {idle.BEFORE}, one request on each, {idle.SETTLED} s later.\n"
    "nginx has set aside a few hundred bytes for each of its `worker_connections` at start, which is not in this:"
)


def _names(samples):
    return list(dict.fromkeys(sample.workload for sample in samples)), list(dict.fromkeys(sample.proxy for sample in samples))


def _median(values, digits):
    values = [value for value in values if value is not None]
    return f"{statistics.median(values):.{digits}f}" if values else "-"


def tables(samples):
    """A Markdown table for each workload."""
    lines = []
    workloads, proxies = _names(samples)
    for name in workloads:
        workload = WORKLOADS[name]
        unit = {"request": "a request", "MB": "an MB"}[workload.unit]
        rate = {"request": "requests/s", "MB": "MB/s"}[workload.unit]
        lines += [
            f"### {name}: {workload.what}", "",
            f"| proxy | CPU us {unit} | against nginx | against haproxy | us above the floor | {rate} | core % | p50 ms | p99 ms | MB |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        first = {"routes": "routes-10", "reshaped": "posted"}.get(workload.door, "nginx")
        lines[-2] = lines[-2].replace("against nginx", f"against {first}")
        for proxy in proxies:
            own = of(samples, name, proxy)
            if not own:
                continue
            cells = [spread([sample.cost for sample in own], 1)]
            for other in (first, "haproxy"):
                ratios = paired(samples, name, proxy, other)
                cells.append(spread(ratios, 2) if ratios and other != proxy else "-")
            above = above_floor(samples, name, proxy)
            cells.append(spread(above, 1) if above and proxy != "floor" else "-")
            cells.append(_median([sample.load.rate for sample in own], 0))
            cells.append(_median([sample.busy for sample in own], 0))
            cells.append(_median([sample.load.p50 for sample in own], 2))
            cells.append(_median([sample.load.p99 for sample in own], 2))
            cells.append(f"{max(sample.resident for sample in own):.0f}")
            lines.append(f"| {proxy} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def summary(samples, growths):
    return "\n".join([*targets.table(samples), *targets.latencies(samples), *targets.idle_table(growths), *tables(samples)])


def write(directory, name, facts, samples, growths, configurations, options):
    """Writes the three files; their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"{time.strftime('%Y-%m-%d', time.gmtime())}-{name}"
    markdown, table, drawing = (stem.with_suffix(suffix) for suffix in (".md", ".csv", ".svg"))
    latencies, growths = targets.latencies(samples), targets.idle_table(growths)
    lines = [
        f"# Side by side: {facts['date']}", "",
        f"{options.rounds} interleaved rounds of {options.seconds} s a proxy and workload; one worker each, the proxy on CPU 0, clients and",
        "backend on CPU 1, over loopback. Figures are the median over the rounds with [smallest-largest]; ratios and differences",
        "are formed within a round. Peers log nothing but for `nginx-full`; Tidegate writes its access log and counts its",
        "metrics all the time, and the CPU of all its threads is included. `benches/peers/run` repeats this.", "",
        *targets.table(samples),
        *(["Latency from the instant at which a request was due:", "", *latencies] if latencies else []),
        *([IDLE, "", *growths] if growths else []),
        *([f"![CPU beside nginx]({drawing.name})", ""] if samples else []),
        *tables(samples),
        "## The machine", "", "| fact | value |", "| --- | --- |",
        *(f"| {key} | {value} |" for key, value in facts.items()), "",
        "## Configurations", "", configurations,
    ]
    markdown.write_text("\n".join(lines))
    with open(table, "w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["workload", "proxy", "round", "unit", "units", "cpu_us_per_unit", "units_per_s", "core_percent", "p50_ms", "p99_ms", "rss_mb"])
        for sample in samples:
            load = sample.load
            writer.writerow([
                sample.workload, sample.proxy, sample.number, WORKLOADS[sample.workload].unit, f"{load.units:.0f}", f"{sample.cost:.3f}", f"{load.rate:.1f}",
                f"{sample.busy:.1f}", *("" if value is None else f"{value:.3f}" for value in (load.p50, load.p99)), f"{sample.resident:.1f}",
            ])
    if samples:
        drawing.write_text(draw(samples, facts["date"]))
    if samples and options.chart:
        (directory / "chart.svg").write_text(draw(samples, facts["date"]))
    return [markdown, table, drawing] if samples else [markdown, table]


def draw(samples, date):
    """Bars of CPU beside nginx by workload and proxy, medians of paired rounds, with whiskers from smallest to largest."""
    workloads, proxies = _names(samples)
    shown = []  # workload, [(proxy, ratios)]
    for workload in workloads:
        bars = [(proxy, paired(samples, workload, proxy, "nginx")) for proxy in proxies if proxy != "nginx"]
        bars = [(proxy, ratios) for proxy, ratios in bars if ratios]
        if bars:
            shown.append((workload, bars))
    bar, gap, height, left, top = 16, 22, 260, 40, 54
    # One slow peer must not flatten the others: what is higher is cut, and its figure told.
    ceiling = min(2.5, max([1.2, *(max(ratios) * 1.05 for _, bars in shown for _, ratios in bars)]))
    width = max(420, left + sum(gap + max(bar * len(bars), 58) for _, bars in shown) + gap)
    scale, base = height / ceiling, height + top
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{base + 50}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{base + 50}" fill="#ffffff"/>',
        f'<text x="{left}" y="18" font-size="13">CPU for the same work, nginx = 1; {date}</text>',
    ]
    for tenth in range(0, int(ceiling * 10) + 1, 2):
        y = base - tenth / 10 * scale
        colour = COLOURS["nginx"] if tenth == 10 else "#e3e3e3"
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{width - 10}" y2="{y:.1f}" stroke="{colour}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    x = left + gap / 2
    for workload, bars in shown:
        room = max(bar * len(bars), 58)
        at = x + (room - bar * len(bars)) / 2
        for proxy, ratios in bars:
            middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
            tall = min(middle, ceiling) * scale
            parts.append(
                f'<rect x="{at:.1f}" y="{base - tall:.1f}" width="{bar - 3}" height="{tall:.1f}" fill="{COLOURS.get(proxy, "#888888")}">'
                f"<title>{proxy}, {workload}: {middle:.2f} [{low:.2f}-{high:.2f}]</title></rect>"
            )
            centre, above = at + (bar - 3) / 2, base - min(high, ceiling) * scale
            parts.append(f'<line x1="{centre:.1f}" y1="{base - min(low, ceiling) * scale:.1f}" x2="{centre:.1f}" y2="{above:.1f}" stroke="#333333"/>')
            parts.append(f'<text x="{centre:.1f}" y="{above - 3:.1f}" text-anchor="middle" font-size="8">{middle:.2f}</text>')
            at += bar
        parts.append(f'<text x="{x + room / 2:.1f}" y="{base + 16}" text-anchor="middle" font-size="10">{workload}</text>')
        x += room + gap
    x = left
    for proxy in dict.fromkeys(proxy for _, bars in shown for proxy, _ in bars):
        parts.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{COLOURS.get(proxy, "#888888")}"/>')
        parts.append(f'<text x="{x + 14}" y="35">{proxy}</text>')
        x += 84
    return "\n".join([*parts, "</svg>", ""])
