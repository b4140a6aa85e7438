// Charts with BokehJS, from plain data; page.js says what is drawn and when.
"use strict";

// Colours that the colour-blind tell apart (after Okabe and Ito 2008), each with contrast 3:1 or
// more; eight of them and seven markers give 56 series marks of their own.
const LIGHT = ["#0072b2", "#c44e00", "#00805c", "#b1478a", "#1a1a1a", "#8a6500", "#2a8fc9", "#6b3fa0"];
const DARK = ["#56b4e9", "#e69f00", "#2bc59b", "#e79fc6", "#e8e8e6", "#f0e442", "#ff8a5c", "#b79cf0"];
const MARKERS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star"];
const SIGNS = ["●", "■", "▲", "◆", "▼", "⬢", "★"];
const MOST_MARKERS = 1000; // beyond so many points only MARKED of each line are marked
const MARKED = 8;
const START = 0.1; // share of the steps that is the start, in which losses fall steeply
const THINNED = 12; // lines beyond which they are thinner

const charts = {
  places: new Map(), // by id: what is drawn there

  isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },

  mark(number) {
    const palette = this.isDark() ? DARK : LIGHT;
    return {
      color: palette[number % palette.length],
      marker: MARKERS[number % MARKERS.length],
      sign: SIGNS[number % SIGNS.length],
    };
  },

  turns: new Map(), // by id: the last drawing there, which the next one waits for

  // Draws a figure in the place called `id`, instead of what is there. `paint` fills it. Of several
  // that wait only the last is drawn.
  draw(id, options, paint) {
    const mine = Symbol(id);
    const turn = this.turns.get(id) ?? { done: Promise.resolve() };
    turn.last = mine;
    turn.done = turn.done.then(() => (turn.last === mine ? this.drawNow(id, options, paint) : null));
    this.turns.set(id, turn);
    return turn.done;
  },

  async drawNow(id, { x, y, xLog, yLog, height, factors, span }, paint) {
    const place = document.getElementById(id);
    const before = this.places.get(id);
    const narrow = innerWidth < 600;
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const ranges = factors ? { y_range: new Bokeh.FactorRange({ factors }) }
      : span ? { y_range: new Bokeh.Range1d(span) } : {};
    const figure = Bokeh.Plotting.figure({
      sizing_mode: "stretch_width",
      height: narrow ? Math.min(height, 340) : height,
      tools: "pan,box_zoom,wheel_zoom,reset,save",
      toolbar_location: narrow ? "above" : "right",
      active_drag: narrow ? null : "box_zoom", // on a phone a drag scrolls the page
      active_scroll: null,
      x_axis_type: xLog ? "log" : "linear",
      ...(factors ? {} : { y_axis_type: yLog ? "log" : "linear" }),
      ...ranges,
      background_fill_color: colour("--panel"),
      border_fill_color: colour("--panel"),
      outline_line_color: null,
    });
    figure.toolbar.logo = null;
    [[figure.xaxis, x], [figure.yaxis, y]].forEach(([axis, label]) => {
      for (const each of [axis].flat()) {
        each.axis_label = label;
        each.axis_label_text_color = each.major_label_text_color = colour("--text");
        each.axis_line_color = each.major_tick_line_color = colour("--soft");
        each.minor_tick_line_color = null;
        each.axis_label_text_font_style = "normal";
      }
    });
    for (const grid of [figure.xgrid, figure.ygrid].flat()) grid.grid_line_color = colour("--line");
    const drawn = { ...paint(figure), figure };
    this.places.set(id, drawn);
    before?.views.clear();
    const box = document.createElement("div");
    place.replaceChildren(box);
    const drawing = new Bokeh.Document(); // Plotting.show would wait for the end of the page
    drawing.add_root(figure);
    drawn.views = await Bokeh.embed.add_document_standalone(drawing, box);
    return drawn;
  },

  hover(figure, renderer, tooltips) {
    const tool = new Bokeh.HoverTool({
      renderers: [renderer], tooltips, point_policy: "snap_to_data", limit: 6,
    });
    figure.add_tools(tool);
  },

  // Lines with marks. Each of `series`: id, name, number, what, dashed, x, y, tokens, and for a band
  // low and high. Only those whose id is in `shown` are drawn. All lines of a kind are one glyph:
  // hundreds of glyphs take seconds.
  async lines(id, series, shown, options) {
    if (!this.somethingIn(id, series.some((each) => shown.has(each.id)))) return null;
    const span = options.withoutStart ? this.spanOf(series, shown, options.yLog) : null;
    return this.draw(id, { ...options, span }, (figure) => {
      const drawn = { series, shown, options, lines: {} };
      const paths = [{ field: "xs" }, { field: "ys" }];
      const [color, alpha] = [{ field: "color" }, { field: "alpha" }];
      drawn.bands = new Bokeh.ColumnDataSource({ data: {} });
      drawn.points = new Bokeh.ColumnDataSource({ data: {} });
      for (const kind of ["solid", "dashed"]) {
        drawn.lines[kind] = new Bokeh.ColumnDataSource({ data: {} });
      }
      this.fill(drawn);
      figure.patches(...paths, { source: drawn.bands, fill_color: color, fill_alpha: alpha, line_color: null });
      for (const [kind, source] of Object.entries(drawn.lines)) {
        figure.multi_line(...paths, {
          source, line_color: color, line_alpha: alpha, line_width: shown.size > THINNED ? 1.2 : 2,
          line_dash: { value: kind }, // solid or dashed
        });
      }
      const at = [{ field: "x" }, { field: "y" }];
      figure.scatter(...at, {
        source: drawn.points, marker: { field: "marker" }, size: { field: "size" }, fill_color: color, line_color: color,
      });
      const catcher = figure.scatter(...at, { source: drawn.points, size: 14, fill_alpha: 0, line_alpha: 0 });
      this.hover(figure, catcher, [
        ["run", "@name"], ["", "@what"], [options.x, "@x{0,0}"], ["tokens", "@tokens"],
        [options.unit, "@y{0.0000}@note"],
      ]);
      return drawn;
    });
  },

  // Gives the sources of `drawn` what is shown; lines of another key than `lit` are faint.
  fill(drawn, lit = null) {
    const seen = drawn.series.filter((each) => drawn.shown.has(each.id));
    const faint = (each) => (lit === null || each.id === lit ? 1 : 0.2);
    const color = (each) => this.mark(each.number).color;
    for (const [kind, source] of Object.entries(drawn.lines)) {
      const those = seen.filter((each) => each.dashed === (kind === "dashed"));
      source.data = {
        xs: those.map((each) => each.x), ys: those.map((each) => each.y),
        color: those.map(color), alpha: those.map(faint),
      };
    }
    const banded = seen.filter((each) => each.low);
    drawn.bands.data = {
      xs: banded.map((each) => [...each.x, ...each.x.toReversed()]),
      ys: banded.map((each) => [...each.low, ...each.high.toReversed()]),
      color: banded.map(color), alpha: banded.map((each) => (each.dashed ? 0.1 : 0.25) * faint(each)),
    };
    if (lit === null) drawn.points.data = this.points(seen);
  },

  // Shows the lines whose ids are in `shown`, without drawing anew.
  show(id, shown) {
    const drawn = this.places.get(id);
    if (!drawn || !this.somethingIn(id, drawn.series.some((each) => shown.has(each.id)))) return;
    drawn.shown = shown;
    this.fill(drawn);
    const { withoutStart, yLog } = drawn.options;
    const span = withoutStart ? this.spanOf(drawn.series, shown, yLog) : null;
    if (span) drawn.figure.y_range.setv({ ...span, reset_start: span.start, reset_end: span.end });
  },

  // Lets the lines of `key` stand out; null ends that.
  highlight(id, key) {
    const drawn = this.places.get(id);
    if (drawn) this.fill(drawn, key);
  },

  // Returns the range of what is shown after the start, null where there is nothing.
  spanOf(series, shown, log) {
    const seen = series.filter((each) => shown.has(each.id));
    const from = START * Math.max(...seen.map((each) => each.x.at(-1)));
    const values = seen.flatMap((each) => [each.y, each.low ?? [], each.high ?? []]
      .flatMap((column) => column.filter((_, at) => each.x[at] >= from)));
    if (!values.length) return null;
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const room = 0.05 * (most - least || most);
    return { start: log ? least / 1.02 : least - room, end: log ? most * 1.02 : most + room };
  },

  // Says so in the place called `id` where there is nothing to draw.
  somethingIn(id, something) {
    const place = document.getElementById(id);
    let line = place.querySelector(":scope > p");
    if (!line) place.prepend(line = document.createElement("p"));
    line.textContent = something ? "" : "Nothing is chosen.";
    line.hidden = something;
    for (const box of place.querySelectorAll(":scope > div")) box.hidden = !something;
    return something;
  },

  points(seen) {
    const few = seen.reduce((sum, each) => sum + each.x.length, 0) <= MOST_MARKERS;
    const data = { x: [], y: [], name: [], what: [], tokens: [], note: [], marker: [], color: [], size: [] };
    for (const each of seen) {
      const { color, marker } = this.mark(each.number);
      const apart = Math.ceil(each.x.length / MARKED);
      each.x.forEach((x, at) => {
        const left = each.x.length - 1 - at;
        data.x.push(x);
        data.y.push(each.y[at]);
        data.name.push(each.name);
        data.what.push(each.what);
        data.tokens.push(each.tokens?.[at]?.toLocaleString("en") ?? "unknown");
        data.note.push(each.low ? ` (${each.low[at].toFixed(4)} to ${each.high[at].toFixed(4)})` : "");
        data.marker.push(marker);
        data.color.push(color);
        data.size.push(left === 0 ? 7 : few || left % apart === 0 ? 5 : 0);
      });
    }
    return data;
  },

  // Marks by category: each of `series` has a name, a number, labels and values.
  async dots(id, series, options) {
    if (!this.somethingIn(id, series.some((each) => each.values.length))) return null;
    return this.draw(id, options, (figure) => {
      series.forEach((each) => {
        const { color, marker } = this.mark(each.number);
        const source = new Bokeh.ColumnDataSource({
          data: { x: each.values, y: each.labels, name: each.labels.map(() => each.name), share: each.shares },
        });
        const dots = figure.scatter({ field: "x" }, { field: "y" }, {
          source, marker, size: 9, fill_color: color, line_color: color, fill_alpha: 0.7,
        });
        this.hover(figure, dots, [
          ["run", "@name"], ["token", "@y"], [options.x, "@x{0.0000}"], ["share of the loss", "@share{0.0%}"],
        ]);
      });
      return { series };
    });
  },
};
