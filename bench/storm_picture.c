/*
 * A storm as an SVG file: four panels over one axis of time, which begins
 * before the cut.  It needs no script and no font of its own, and follows the
 * viewer from light to dark.
 */
#include "storm.h"
#include <math.h>
#include <stdlib.h>

enum { WIDTH = 960, LEFT = 78, RIGHT = 24, TOP = 84, PANEL = 128, GAP = 54 };
enum { PANELS = 4, HEIGHT = TOP + PANELS * (PANEL + GAP) + 6 };
enum { BEFORE_S = 2, AFTER_S = 1 };

#define WINDOW_S 0.5

typedef struct {
    FILE *out;
    const settings *set;
    const stage *at;
    double from, to;  /* s, from the cut */
    double low, high; /* of the present panel */
    double bottom;
    int log;
} picture;

/* Classes and no variables: not every viewer knows those. */
static const char style[] =
    "<style>\n"
    "text{font:13px system-ui,sans-serif;fill:#1f2328}\n"
    ".t{font-size:17px;font-weight:600}.h{font-weight:600}\n"
    ".paper{fill:#fff}.dim{fill:#59636e}.grid{stroke:#d8dee4}\n"
    ".cut{stroke:#59636e;stroke-dasharray:2 3}\n"
    ".limit{stroke:#1f2328;stroke-dasharray:6 4}\n"
    ".in{stroke:#0969da}.area{fill:#0969da;fill-opacity:.16}\n"
    ".yes{fill:#1a7f37}.no{fill:#cf222e}\n"
    ".p50{stroke:#1a7f37}.p99{stroke:#8250df}\n"
    ".k50{fill:#1a7f37}.k99{fill:#8250df}\n"
    "path{stroke-width:2}.in,.p50,.p99{fill:none}\n"
    "@media(prefers-color-scheme:dark){\n"
    "text{fill:#f0f6fc}.paper{fill:#0d1117}.dim{fill:#9198a1}\n"
    ".grid{stroke:#30363d}.cut{stroke:#9198a1}.limit{stroke:#f0f6fc}\n"
    ".in{stroke:#4493f8}.area{fill:#4493f8}\n"
    ".yes{fill:#3fb950}.no{fill:#f85149}\n"
    ".p50{stroke:#3fb950}.p99{stroke:#ab7df8}\n"
    ".k50{fill:#3fb950}.k99{fill:#ab7df8}}\n"
    "</style>\n";

/* ---- one panel ---------------------------------------------------------- */

static double x_of(const picture *p, double s)
{
    return LEFT + (s - p->from) / (p->to - p->from) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const picture *p, double value)
{
    double part = (value - p->low) / (p->high - p->low);
    if (p->log)
        part = log(value / p->low) / log(p->high / p->low);
    if (part < 0 || isnan(part))
        part = 0;
    return p->bottom - (part > 1 ? 1 : part) * PANEL;
}

/* 1, 2 or 5 times a power of ten, so that about so many fit. */
static double step_of(double span, double count)
{
    double raw = span / count, ten = pow(10, floor(log10(raw)));
    if (raw <= ten)
        return ten;
    if (raw <= 2 * ten)
        return 2 * ten;
    return raw <= 5 * ten ? 5 * ten : 10 * ten;
}

static void line(picture *p, const char *kind, double from, double to,
                 double value)
{
    fprintf(p->out,
            "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
            "y2=\"%.1f\"/>\n",
            kind, x_of(p, from), y_of(p, value), x_of(p, to), y_of(p, value));
}

static void level(picture *p, double value)
{
    line(p, "grid", p->from, p->to, value);
    fprintf(p->out,
            "<text class=\"dim\" x=\"%d\" y=\"%.1f\" "
            "text-anchor=\"end\">%g</text>\n",
            LEFT - 8, y_of(p, value) + 4, value);
}

static void levels(picture *p)
{
    double v, step = step_of(p->high - p->low, 4);
    if (p->log)
        for (v = p->low; v <= p->high * 1.01; v *= 10)
            level(p, v);
    else
        for (v = 0; v <= p->high * 1.001; v += step)
            level(p, v);
}

static void seconds(picture *p)
{
    double s, step = step_of(p->to - p->from, 12);
    for (s = ceil(p->from / step) * step; s <= p->to; s += step)
        fprintf(p->out,
                "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" "
                "text-anchor=\"middle\">%g%s</text>\n",
                x_of(p, s), p->bottom + 18, fabs(s) < 1e-9 ? 0 : s,
                s + step > p->to ? " s" : "");
    fprintf(p->out,
            "<line class=\"cut\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
            "y2=\"%.1f\"/>\n",
            x_of(p, 0), p->bottom - PANEL, x_of(p, 0), p->bottom);
}

static void panel(picture *p, int which, double low, double high,
                  const char *title, const char *more)
{
    p->bottom = TOP + which * (PANEL + GAP) + PANEL;
    p->log = low > 0;
    p->low = low;
    p->high = high;
    fprintf(p->out,
            "<text x=\"%d\" y=\"%.1f\"><tspan class=\"h\">%s</tspan>"
            "<tspan class=\"dim\">%s</tspan></text>\n",
            LEFT, p->bottom - PANEL - 10, title, more);
    levels(p);
    seconds(p);
}

/* A remark at that height in pixels below the top of the panel. */
static void remark(const picture *p, double s, double below, const char *anchor,
                   const char *text)
{
    fprintf(p->out,
            "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" "
            "text-anchor=\"%s\">%s</text>\n",
            x_of(p, s), p->bottom - PANEL + below, anchor, text);
}

/* ---- what is drawn ------------------------------------------------------ */

static double second_of(const picture *p, uint64_t ns)
{
    return ((double)ns - (double)p->at->clients.cut_ns) / SECOND;
}

static int shown(const picture *p, double s)
{
    return s >= p->from && s <= p->to;
}

/* How many came in the 100 ms before sample i. */
typedef double counter(const sample *x);

static double admitted(const sample *x)
{
    return (double)(x[0].admitted - x[-1].admitted);
}

static double refused(const sample *x)
{
    return (double)(x[0].refused - x[-1].refused);
}

static double most_of(const picture *p, counter *count)
{
    double most = 1;
    for (int i = 1; i < p->at->server.samples; i++) {
        const sample *x = &p->at->server.sample[i];
        if (shown(p, second_of(p, x->ns)) && count(x) > most)
            most = count(x);
    }
    return most;
}

static void bars(picture *p, const char *kind, counter *count)
{
    fprintf(p->out, "<path class=\"%s\" d=\"", kind);
    for (int i = 1; i < p->at->server.samples; i++) {
        const sample *x = &p->at->server.sample[i];
        double a = second_of(p, x[-1].ns), b = second_of(p, x->ns);
        if (shown(p, a) && shown(p, b) && count(x) > 0)
            fprintf(p->out, "M%.1f %.1fV%.1fH%.1fV%.1fz\n", x_of(p, a),
                    p->bottom, y_of(p, count(x)), x_of(p, b) - 0.6, p->bottom);
    }
    fprintf(p->out, "\"/>\n");
}

/* Never, which is 0, comes last. */
static int when_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a - 1, y = *(const uint64_t *)b - 1;
    return (x > y) - (x < y);
}

/* The line from the left end to the right: at the cut all are gone, then each
   that is back is a step up. */
static void connected_line(picture *p, const uint64_t *back, long n)
{
    long step = n / 400 + 1, i;
    fprintf(p->out, "M%.1f %.1fH%.1fV%.1f\n", x_of(p, p->from),
            y_of(p, (double)n), x_of(p, 0), p->bottom);
    for (i = step - 1; i < n; i += step)
        if (back[i])
            fprintf(p->out, "L%.1f %.1f\n", x_of(p, second_of(p, back[i])),
                    y_of(p, (double)(i + 1)));
    if (back[n - 1])
        fprintf(p->out, "L%.1f %.1f", x_of(p, second_of(p, back[n - 1])),
                y_of(p, (double)n));
    fprintf(p->out, "H%.1f\n", x_of(p, p->to));
}

static void connected(picture *p, const uint64_t *back, long n)
{
    char text[64];
    panel(p, 0, 0, (double)n * 1.12, "Sessions that are connected", "");
    fprintf(p->out, "<path class=\"area\" d=\"");
    connected_line(p, back, n);
    fprintf(p->out, "V%.1fH%.1fz\"/>\n<path class=\"in\" d=\"", p->bottom,
            x_of(p, p->from));
    connected_line(p, back, n);
    fprintf(p->out, "\"/>\n");
    remark(p, 0, 40, "start", "&#160;the cut");
    if (back[n - 1])
        snprintf(text, sizeof text, "all are back after %.1f s",
                 second_of(p, back[n - 1]));
    else
        snprintf(text, sizeof text, "%d are back", p->at->back);
    remark(p, p->to, 40, "end", text);
}

static void connections(picture *p)
{
    double limit = (double)p->set->rate / 10, most = most_of(p, admitted);
    char text[64];
    panel(p, 1, 0, (most > limit ? most : limit) * 1.15, "Connections admitted",
          ", per 100 ms");
    bars(p, "yes", admitted);
    line(p, "limit", p->from, p->to, limit);
    snprintf(text, sizeof text, "%ld a second", p->set->rate);
    remark(p, p->to, y_of(p, limit) - p->bottom + PANEL - 5, "end", text);
    most = most_of(p, refused);
    panel(p, 2, 0, most < 10 ? 10 : most * 1.1, "Connections refused",
          ", per 100 ms");
    bars(p, "no", refused);
}

static double window(const picture *p, double s, double percent, double *room)
{
    uint64_t from = p->at->clients.cut_ns + (uint64_t)(int64_t)(s * SECOND);
    return result_trips(p->at, from, from + (uint64_t)(WINDOW_S * SECOND),
                        percent, room);
}

static void curve(picture *p, const char *kind, double percent, double *room)
{
    char command = 'M';
    double s, v;
    fprintf(p->out, "<path class=\"%s\" d=\"", kind);
    for (s = p->from; s + WINDOW_S <= p->to; s += WINDOW_S) {
        v = window(p, s, percent, room);
        if (v <= 0)
            continue;
        fprintf(p->out, "%c%.1f %.1fH%.1f\n", command, x_of(p, s), y_of(p, v),
                x_of(p, s + WINDOW_S));
        command = 'L';
    }
    fprintf(p->out, "\"/>\n");
}

/* The axis has whole decades, from the least median to the greatest p99. */
static void decades(const picture *p, double *room, double *low, double *high)
{
    double s, v;
    for (s = p->from; s + WINDOW_S <= p->to; s += WINDOW_S) {
        while ((v = window(p, s, 50, room)) > 0 && v < *low)
            *low /= 10;
        while (window(p, s, 99, room) > *high)
            *high *= 10;
    }
}

static void stayers(picture *p, double *room)
{
    const stage *at = p->at;
    double quiet = result_trips(at, at->quiet_ns, at->storm_ns, 99, room),
           storm = result_trips(at, at->clients.cut_ns, at->end_ns, 99, room),
           low = 0.1, high = 1;
    char text[96];
    decades(p, room, &low, &high);
    panel(p, 3, low, high, "Round trip of those who stayed",
          ", ms: <tspan class=\"k99\">p99</tspan> and "
          "<tspan class=\"k50\">p50</tspan> of each half second");
    curve(p, "p50", 50, room);
    curve(p, "p99", 99, room);
    line(p, "limit", p->from, 0, quiet);
    line(p, "limit", 0, second_of(p, at->end_ns), storm);
    snprintf(text, sizeof text, "p99 before the cut %.2f, then %.2f ms", quiet,
             storm);
    remark(p, p->to, -10, "end", text);
}

/* ---- the file ----------------------------------------------------------- */

static void head(picture *p)
{
    long n = p->set->clients;
    char many[32];
    if (n < 1000)
        snprintf(many, sizeof many, "%ld", n);
    else
        snprintf(many, sizeof many, "%ld,%03ld", n / 1000, n % 1000);
    fprintf(p->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
            "width=\"%d\" height=\"%d\" role=\"img\">\n"
            "<title>A storm of %s clients</title>\n%s"
            "<rect width=\"100%%\" height=\"100%%\" class=\"paper\"/>\n"
            "<text class=\"t\" x=\"%d\" y=\"34\">%s clients lose their server "
            "at the same moment, and come back</text>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, many, style, LEFT, many);
}

static int picture_draw(picture *p, uint64_t *back, double *room)
{
    long n = p->set->clients;
    for (long i = 0; i < n; i++)
        back[i] = p->at->clients.back_ns[i];
    qsort(back, (size_t)n, sizeof *back, when_order);
    head(p);
    connected(p, back, n);
    connections(p);
    stayers(p, room);
    fprintf(p->out, "</svg>\n");
    return ferror(p->out) ? -1 : 0;
}

int picture_write(const char *path, const settings *set, const stage *at)
{
    picture p = {0};
    uint64_t *back = (uint64_t *)calloc((size_t)set->clients, sizeof *back);
    double *room = (double *)calloc(at->stayers.trips + 1, sizeof *room);
    int bad = -1;
    p.set = set;
    p.at = at;
    p.from = -BEFORE_S;
    p.to = ((double)at->end_ns - (double)at->clients.cut_ns) / SECOND + AFTER_S;
    p.out = fopen(path, "w");
    if (p.out && back && room)
        bad = picture_draw(&p, back, room);
    if (p.out && fclose(p.out) != 0)
        bad = -1;
    free(back);
    free(room);
    return bad;
}
