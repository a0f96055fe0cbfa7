"""The pictures of make bench, as SVG: no script, no font of their own, light
background."""
import html
import math

INK, DIM, GRID, GOAL = "#1f2328", "#59636e", "#d8dee4", "#cf222e"
COLOURS = ("#0969da", "#8250df", "#1a7f37", "#bc4c00", "#6e7781", "#bf3989")
WIDTH, LEFT, RIGHT = 960, 72, 32


class Page:
    """An SVG file that grows line by line."""

    def __init__(self, width, height, title, subtitle):
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
            f'{height}" width="{width}" height="{height}" '
            'font-family="system-ui,DejaVu Sans,sans-serif" font-size="13">',
            f'<rect width="{width}" height="{height}" fill="#fff"/>']
        self.text(24, 34, title, size=18, weight=600)
        self.text(24, 56, subtitle, fill=DIM)

    def text(self, x, y, text, anchor="start", fill=INK, size=13, weight=400):
        self.lines.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'fill="{fill}" font-size="{size}" font-weight="{weight}">'
            f'{html.escape(text)}</text>')

    def line(self, x1, y1, x2, y2, stroke=GRID, width=1, dash=""):
        self.lines.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="{stroke}" stroke-width="{width}" '
            f'stroke-dasharray="{dash}"/>')

    def rect(self, x, y, width, height, fill):
        self.lines.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(0, width):.1f}" '
            f'height="{height:.1f}" fill="{fill}" rx="2"/>')

    def dot(self, x, y, fill):
        self.lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" '
                          f'fill="{fill}"/>')

    def path(self, points, stroke):
        steps = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.lines.append(f'<path d="M{steps}" fill="none" stroke="{stroke}" '
                          'stroke-width="2.2" stroke-linejoin="round"/>')

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.write("\n".join([*self.lines, "</svg>"]) + "\n")


def legend(page, names, x, y):
    """Returns where the next word would go."""
    for name, colour in names.items():
        page.rect(x, y - 10, 12, 12, colour)
        page.text(x + 17, y, name)
        x += 34 + 8 * len(name)
    return x


def coloured(names):
    return dict(zip(names, COLOURS * (1 + len(names) // len(COLOURS))))


# ---- bars: ratios to the limit ----------------------------------------------

NAMES_X, VALUE_ROOM = 300, 60
RATIO_MAX = 1.6


def bars(path, rows, names, where):
    """rows: title, goal, and by name a spread."""
    colours = coloured(names)
    thick = 18 if len(names) == 1 else 12
    step = thick * len(names) + 18
    height = 112 + step * len(rows) + 36
    page = Page(WIDTH, height, "Work done, as a ratio to the least a server "
                "can do", where)
    x = legend(page, colours, 24, 84)
    page.line(x + 8, 74, x + 8, 88, GOAL, 3)
    page.text(x + 17, 84, "goal")
    bars_scale(page, 104, height - 36)
    for i, row in enumerate(rows):
        bars_row(page, row, colours, 112 + i * step, thick)
    page.save(path)


def bars_x(ratio):
    span = WIDTH - NAMES_X - RIGHT - VALUE_ROOM
    return NAMES_X + min(ratio, RATIO_MAX) / RATIO_MAX * span


def bars_scale(page, top, bottom):
    for tenths in range(0, int(RATIO_MAX * 10) + 1, 2):
        x = bars_x(tenths / 10)
        page.line(x, top, x, bottom, DIM if tenths == 10 else GRID)
        page.text(x, bottom + 18, f"{tenths / 10:g}", "middle", DIM)


def bars_row(page, row, colours, y, thick):
    title, goal, spreads = row
    page.text(NAMES_X - 12, y + thick * len(colours) / 2 + 4.5, title, "end")
    for i, (name, colour) in enumerate(colours.items()):
        if name in spreads:
            bar(page, spreads[name], colour, y + i * thick, thick)
    if goal is not None:
        x = bars_x(goal)
        page.line(x, y - 3, x, y + thick * len(colours) + 3, GOAL, 3)


def bar(page, spread, colour, y, thick):
    middle = y + thick / 2 - 0.5
    page.rect(bars_x(0), y, bars_x(spread["median"]) - bars_x(0), thick - 1,
              colour)
    low, high = bars_x(spread["least"]), bars_x(spread["greatest"])
    page.line(low, middle, high, middle, INK, 1.2)
    for x in (low, high):
        page.line(x, middle - 3, x, middle + 3, INK, 1.2)
    page.text(WIDTH - RIGHT, middle + 4.5, f"{spread['median']:.2f}", "end",
              size=min(13, thick - 2))


# ---- curves -----------------------------------------------------------------

CURVE_TOP, CURVE_BOTTOM, CURVE_HEIGHT = 112, 380, 440


def log_ticks(low, high):
    """1, 2, 5 times powers of ten around low..high."""
    decade = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [m * 10.0 ** d for d in decade for m in (1, 2, 5)]
    first = max([t for t in every if t <= low], default=every[0])
    last = min([t for t in every if t >= high], default=every[-1])
    return [t for t in every if first <= t <= last]


def even_ticks(high):
    """From 0 to beyond high, in about five steps of 1, 2 or 5."""
    step = next(t for t in log_ticks(high / 100, high) if 5 * t >= high)
    return [step * i for i in range(math.ceil(high / step) + 1)]


def curve_y(page, values, unit, log):
    """Draws the vertical axis; returns what places a value on it."""
    high = max(values) * 1.1
    ticks = log_ticks(min(values) * 0.9, high) if log else even_ticks(high)
    scale = math.log if log else float
    low, span = scale(ticks[0]), scale(ticks[-1]) - scale(ticks[0])

    def place(value):
        return (CURVE_BOTTOM -
                (scale(value) - low) / span * (CURVE_BOTTOM - CURVE_TOP))

    for tick in ticks:
        page.line(LEFT, place(tick), WIDTH - RIGHT, place(tick))
        page.text(LEFT - 8, place(tick) + 4.5, f"{tick:,g}", "end", DIM)
    page.text(LEFT - 8, CURVE_TOP - 14, unit, "end", DIM)
    return place


def curve(path, title, where, points, x_axis, log=False):
    """points: by name (x, us); x_axis: from x to its place 0..1, the ticks and
    their texts, and what they are; log: the other axis is logarithmic."""
    place, ticks, about = x_axis
    page = Page(WIDTH, CURVE_HEIGHT, title, where)
    colours = coloured(list(points))
    legend(page, colours, LEFT, 84)
    y = curve_y(page, [us for each in points.values() for _, us in each], "us",
                log)

    def x(value):
        return LEFT + 16 + place(value) * (WIDTH - RIGHT - LEFT - 48)

    for at, text in ticks:
        page.line(x(at), CURVE_TOP, x(at), CURVE_BOTTOM)
        page.text(x(at), CURVE_BOTTOM + 20, text, "middle", DIM)
    page.text((LEFT + WIDTH - RIGHT) / 2, CURVE_BOTTOM + 44, about, "middle",
              DIM)
    for name, each in points.items():
        way = [(x(at), y(value)) for at, value in each]
        page.path(way, colours[name])
        for at in way:
            page.dot(*at, colours[name])
    page.save(path)


def latency(path, points, where):
    """Percentiles: each nine is as wide as the next."""
    seen = sorted({p for each in points.values() for p, _ in each})
    last = max(99.9, seen[-1])

    def nines(percentile):
        return -math.log10(1 - percentile / 100)

    axis = (lambda p: (nines(p) - nines(50)) / (nines(last) - nines(50)),
            [(p, f"{p:g} %") for p in seen],
            "so many of the echoes took no longer")
    curve(path, "Echo on schedule, 100 connections, 20,000 a second", where,
          points, axis, log=True)


def growth(path, points, where):
    counts = sorted({n for each in points.values() for n, _ in each})
    span = math.log(counts[-1] / counts[0])
    axis = (lambda n: math.log(n / counts[0]) / span,
            [(n, f"{n:,}") for n in counts], "connections")
    curve(path, "Time of one processor for an echo, as connections grow",
          where, points, axis)
