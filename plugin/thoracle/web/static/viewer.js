// The viewer of a radiograph: window, zoom, move, rotate, invert, measure, and what lies on it.
//
// First the picture is shown that the server has ready. Then all grey values come, in 16 bit
// (web/pages/rendering.py, grey_values), and a canvas shows them under any window. Image, canvas and
// overlay lie in one sheet that has the image's own size, so they share every transformation. Styles
// are set through the object model alone: the policy of the pages allows no others.
"use strict";

const LARGEST_ZOOM = 16; // screen pixels an image pixel
const STEP = 1.25;
const MOVE = 60;

// All grey values of an image, and its halves for smaller views.
class GreyValues {
  static async load(address) {
    const answer = await fetch(address, { redirect: "error" });
    if (!answer.ok) throw new Error(String(answer.status));
    const bytes = await answer.arrayBuffer();
    const letters = String.fromCharCode(...new Uint8Array(bytes, 0, 4));
    if (letters !== "THGV") throw new Error("unknown format");
    const length = new DataView(bytes).getUint32(4, true);
    const told = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
    const packed = new Blob([new Uint8Array(bytes, 8 + length)]).stream();
    const stream = packed.pipeThrough(new DecompressionStream("deflate"));
    return new GreyValues(told, new Uint8Array(await new Response(stream).arrayBuffer()));
  }

  constructor(told, bytes) {
    Object.assign(this, told);
    const number = this.columns * this.rows;
    this.display = bytes.subarray(0, 65536);
    const high = bytes.subarray(65536, 65536 + number);
    const low = bytes.subarray(65536 + number);
    const values = new Uint16Array(number);
    for (let at = 0; at < number;) {
      let value = 0;
      for (const end = at + this.columns; at < end; at++) {
        value = (value + (high[at] << 8) + low[at]) & 0xffff;
        values[at] = value;
      }
    }
    this.levels = [{ columns: this.columns, rows: this.rows, values }];
  }

  // Level 0 has every pixel, each further one half of the columns and rows.
  level(number) {
    while (this.levels.length <= number) {
      const { columns, rows, values } = this.levels.at(-1);
      if (columns < 64 || rows < 64) break;
      const [across, along] = [columns >> 1, rows >> 1];
      const half = new Uint16Array(across * along);
      for (let y = 0, to = 0; y < along; y++) {
        for (let x = 0, from = 2 * y * columns; x < across; x++, from += 2, to++) {
          half[to] = (values[from] + values[from + 1] + values[from + columns] + values[from + columns + 1]) >> 2;
        }
      }
      this.levels.push({ columns: across, rows: along, values: half });
    }
    return this.levels[Math.min(number, this.levels.length - 1)];
  }

  // The value below which a share of the pixels lies, padding not counted.
  at(share) {
    if (!this.sorted) {
      const found = this.level(3).values.filter((value) => value > 0);
      this.sorted = found.sort();
    }
    return this.sorted[Math.min(this.sorted.length - 1, Math.floor(share * this.sorted.length))];
  }

  // The straight window that comes nearest to what the image states.
  stated() {
    const seen = (one) => one > 12 && one < 243;
    let low = 1;
    let high = 65535;
    while (low < high && !seen(this.display[low])) low++;
    while (high > low && !seen(this.display[high])) high--;
    return low < high ? between(low - 0.05 * (high - low), high + 0.05 * (high - low)) : between(this.at(0.005), this.at(0.995));
  }

  ofUnits({ center, width }) {
    return { center: (center - this.intercept) / this.slope, width: width / this.slope };
  }

  inUnits({ center, width }) {
    return { center: center * this.slope + this.intercept, width: width * this.slope };
  }
}

const between = (low, high) => ({ center: (low + high) / 2, width: Math.max(1, high - low) });

class Viewer {
  constructor(figure) {
    this.figure = figure;
    this.linked = [];
    this.find = (selector) => figure.querySelector(selector);
    this.stage = this.find(".stage[tabindex]");
    for (const button of figure.querySelectorAll("[data-do]")) {
      button.addEventListener("click", () => this.act(button.dataset.do));
    }
    if (!this.stage) return;
    this.sheet = this.find(".sheet");
    this.image = this.find(".radiograph");
    this.overlay = this.find("img.overlay");
    this.canvas = this.find("canvas");
    this.ruler = this.find("svg.ruler");
    this.pointers = new Map();
    this.window = null; // null: as the image states it
    this.inverted = false;
    this.turns = 0;
    this.tool = "window";
    this.columns = Number(figure.dataset.columns) || 0;
    this.rows = Number(figure.dataset.rows) || 0;
    this.listen();
    this.wait();
    new ResizeObserver(() => this.resized()).observe(this.stage);
  }

  // ---- loading --------------------------------------------------------------------------------

  wait() {
    const shown = () => {
      this.find(".loading").hidden = true;
      this.columns ||= this.image.naturalWidth;
      this.rows ||= this.image.naturalHeight;
      this.reset();
      this.complete();
    };
    const broken = () => {
      this.find(".loading").hidden = true;
      this.sheet.hidden = true;
      this.find(".broken").hidden = false;
    };
    this.image.addEventListener("load", shown);
    this.image.addEventListener("error", broken);
    if (this.image.complete && this.image.naturalWidth > 0) shown();
    else if (this.image.complete && this.image.src) broken();
    if (!this.image.src && !this.figure.hidden) this.show();
  }

  // An image that is not looked at is not fetched.
  show() {
    if (!this.stage || this.image.src) return;
    this.image.src = this.image.dataset.src;
  }

  async complete() {
    if (this.grey || !this.figure.dataset.pixels) return;
    try {
      this.grey = await GreyValues.load(this.figure.dataset.pixels);
    } catch {
      this.say("8-bit preview");
      return;
    }
    this.offer();
    this.canvas.hidden = false;
    this.paint();
    this.figure.dataset.ready = "true";
  }

  // The windows that the image states, and some that every radiograph can have.
  offer() {
    const select = this.find("[data-windows]");
    if (!select) return;
    const { grey } = this;
    const dense = (low, high) => (grey.inverse ? between(grey.at(1 - high), grey.at(1 - low)) : between(grey.at(low), grey.at(high)));
    this.presets = [null, ...grey.windows.slice(1).map((one) => grey.ofUnits(one)),
      dense(0, 1), dense(0.02, 0.6), dense(0.4, 0.998)];
    const names = ["As stated", ...grey.windows.slice(1).map((one, at) => one.name || `Window ${at + 2}`),
      "Full range", "Lungs", "Mediastinum, bone"];
    select.replaceChildren(...names.map((name, at) => new Option(name, String(at))));
    select.disabled = false;
  }

  // ---- what is shown --------------------------------------------------------------------------

  // Rows and columns as they lie on the screen.
  get size() {
    return this.turns % 2 ? [this.rows, this.columns] : [this.columns, this.rows];
  }

  get fit() {
    const [columns, rows] = this.size;
    return Math.min(this.stage.clientWidth / columns, this.stage.clientHeight / rows) || 1;
  }

  get isFit() { return this.zoomed === undefined || Math.abs(this.zoomed / this.fitted - 1) < 1e-6; }

  reset() {
    this.zoomed = this.fitted = this.fit;
    this.x = this.y = 0;
    this.draw();
  }

  resized() {
    if (!this.columns) return;
    if (this.isFit) this.reset();
    else { this.fitted = this.fit; this.draw(); }
  }

  draw() {
    if (!this.columns) return;
    const { style } = this.sheet;
    style.width = `${this.columns}px`;
    style.height = `${this.rows}px`;
    const [cx, cy] = [this.stage.clientWidth / 2 + this.x, this.stage.clientHeight / 2 + this.y];
    style.transform = `translate(${cx}px, ${cy}px) scale(${this.zoomed}) rotate(${90 * this.turns}deg) ` +
      `translate(${-this.columns / 2}px, ${-this.rows / 2}px)`;
    this.sheet.classList.toggle("large", this.zoomed * devicePixelRatio > 2);
    this.find("[data-zoom]").textContent = `${Math.round(this.zoomed * devicePixelRatio * 100)} %`;
    this.paint();
    this.drawRuler();
  }

  paint() {
    if (!this.grey || this.painting) return;
    this.painting = requestAnimationFrame(() => { this.painting = 0; this.repaint(); });
  }

  repaint() {
    const shown = this.zoomed * devicePixelRatio * (this.columns / this.grey.columns);
    const { columns, rows, values } = this.grey.level(Math.max(0, Math.floor(Math.log2(1 / shown))));
    if (this.canvas.width !== columns || this.canvas.height !== rows) {
      this.canvas.width = columns;
      this.canvas.height = rows;
      this.pixels = new ImageData(columns, rows);
      this.words = new Uint32Array(this.pixels.data.buffer);
    }
    const table = this.table();
    const { words } = this;
    for (let at = 0; at < values.length; at++) words[at] = table[values[at]];
    this.canvas.getContext("2d").putImageData(this.pixels, 0, 0);
    const { center, width } = this.grey.inUnits(this.window ?? this.grey.stated());
    this.say(`C ${Math.round(center)} W ${Math.round(width)}`);
  }

  // Red, green, blue and opacity of each value.
  table() {
    const found = new Uint32Array(65536);
    const { grey, window: chosen } = this;
    for (let value = 1; value < 65536; value++) {
      let shade = grey.display[value];
      if (chosen) {
        const share = (value - chosen.center) / chosen.width + 0.5;
        shade = Math.round(255 * Math.min(1, Math.max(0, grey.inverse ? 1 - share : share)));
      }
      if (this.inverted) shade = 255 - shade;
      found[value] = 0xff000000 | (shade << 16) | (shade << 8) | shade;
    }
    found[0] = 0xff000000;
    return found;
  }

  say(text) {
    const place = this.find("[data-values]");
    if (place) place.textContent = text;
  }

  // ---- zoom and move --------------------------------------------------------------------------

  // Keeps the place under the point where it is; the point is in pixels of the window.
  zoom(factor, point) {
    const most = Math.max(LARGEST_ZOOM / devicePixelRatio, this.fit);
    const zoom = Math.min(most, this.zoomed * factor);
    if (zoom > this.fit * 1.0001) this.zoomTo(zoom, point);
    else { this.reset(); this.share(); }
  }

  zoomTo(zoom, point) {
    const box = this.stage.getBoundingClientRect();
    const [px, py] = point ? [point.x - box.left, point.y - box.top] : [box.width / 2, box.height / 2];
    const real = zoom / this.zoomed;
    const [cx, cy] = [this.stage.clientWidth / 2, this.stage.clientHeight / 2];
    this.x = px - cx + (this.x + cx - px) * real;
    this.y = py - cy + (this.y + cy - py) * real;
    this.zoomed = zoom;
    this.confine();
    this.draw();
    this.share();
  }

  pan(x, y) { this.x += x; this.y += y; this.confine(); this.draw(); this.share(); }

  // Some of the image stays in sight.
  confine() {
    const [columns, rows] = this.size;
    const across = (this.stage.clientWidth + columns * this.zoomed) / 2 - 40;
    const along = (this.stage.clientHeight + rows * this.zoomed) / 2 - 40;
    this.x = Math.min(across, Math.max(-across, this.x));
    this.y = Math.min(along, Math.max(-along, this.y));
  }

  turn() { this.turns = (this.turns + 1) % 4; this.reset(); }

  // The same part, as far as two images can show the same, in those that are linked.
  share() {
    for (const other of this.linked) {
      if (!other.columns) continue;
      const [mine, theirs] = [this.fit, other.fit];
      other.zoomed = theirs * (this.zoomed / mine);
      other.fitted = theirs;
      other.x = this.x * (other.size[0] * theirs) / (this.size[0] * mine);
      other.y = this.y * (other.size[1] * theirs) / (this.size[1] * mine);
      other.draw();
    }
  }

  // ---- pointer and keys -----------------------------------------------------------------------

  listen() {
    const { stage } = this;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, { x: event.clientX, y: event.clientY });
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      stage.addEventListener(kind, (event) => this.up(event));
    }
    stage.addEventListener("dblclick", () => { this.reset(); this.share(); });
    stage.addEventListener("keydown", (event) => this.key(event));
    this.find("[data-windows]")?.addEventListener("change", (event) => {
      this.setWindow(this.presets[Number(event.target.value)]);
    });
    this.find("[data-opacity]")?.addEventListener("input", (event) => {
      this.lay("overlay", true);
      this.overlay.style.opacity = String(event.target.value / 100);
    });
  }

  down(event) {
    if (event.button > 1) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const isTouch = event.pointerType === "touch";
    this.dragging = isTouch || event.button === 1 || event.shiftKey ? "move" : this.tool;
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (this.dragging === "measure") this.line = [this.place(event), this.place(event)];
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const [dx, dy] = [now.x - before.x, now.y - before.y];
    if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
      if (apart(before) > 0) {
        this.zoom(apart(now) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
      }
    } else if (this.dragging === "measure") {
      this.line[1] = this.place(event);
      this.drawRuler();
    } else if (this.dragging === "window") {
      this.drag(dx, dy);
    } else {
      this.pan(dx, dy);
    }
    this.pointers.set(event.pointerId, now);
  }

  up(event) { this.pointers.delete(event.pointerId); }

  // To the right: wider; down: darker.
  drag(dx, dy) {
    if (!this.grey) return;
    const { center, width } = this.window ?? this.grey.stated();
    const darker = (this.grey.inverse ? -1 : 1) * (this.inverted ? -1 : 1);
    this.setWindow({
      center: center + (darker * dy * width) / 400,
      width: Math.min(200000, Math.max(2, width * Math.exp(dx / 250))),
    });
  }

  setWindow(chosen) {
    this.window = chosen;
    const select = this.find("[data-windows]");
    if (select && this.presets) select.value = String(this.presets.indexOf(chosen));
    this.paint();
  }

  key(event) {
    const keys = {
      Home: () => this.act("reset"),
      ArrowLeft: () => this.pan(MOVE, 0), ArrowRight: () => this.pan(-MOVE, 0),
      ArrowUp: () => this.pan(0, MOVE), ArrowDown: () => this.pan(0, -MOVE),
    };
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  }

  act(what) {
    if (!this.stage) return;
    const actions = {
      in: () => this.zoom(STEP),
      out: () => this.zoom(1 / STEP),
      reset: () => { this.reset(); this.share(); },
      real: () => this.zoomTo(1 / devicePixelRatio),
      turn: () => this.turn(),
      invert: () => this.invert(),
      stated: () => this.setWindow(null),
      window: () => this.choose("window"),
      move: () => this.choose("move"),
      measure: () => this.choose("measure"),
      overlay: () => this.lay("overlay"),
      key: () => this.lay("key"),
    };
    actions[what]?.();
  }

  choose(tool) {
    this.tool = tool;
    for (const one of ["window", "move", "measure"]) this.press(one, one === tool);
    this.stage.dataset.tool = tool;
  }

  invert() {
    this.inverted = !this.inverted;
    this.image.classList.toggle("inverted", this.inverted);
    this.press("invert", this.inverted);
    this.paint();
  }

  lay(name, on) {
    const image = this.find(`img.${name}`);
    if (!image || image.hidden === !(on ?? image.hidden)) return;
    if (!image.src) image.src = image.dataset.src;
    image.hidden = !image.hidden;
    this.press(name, !image.hidden);
  }

  press(what, on) { this.find(`[data-do="${what}"]`)?.setAttribute("aria-pressed", String(on)); }

  // ---- ruler ----------------------------------------------------------------------------------

  // Where in the image a pointer is, in its columns and rows.
  place(event) {
    const box = this.stage.getBoundingClientRect();
    const x = (event.clientX - box.left - this.stage.clientLeft - this.stage.clientWidth / 2 - this.x) / this.zoomed;
    const y = (event.clientY - box.top - this.stage.clientTop - this.stage.clientHeight / 2 - this.y) / this.zoomed;
    const [cos, sin] = [[1, 0], [0, 1], [-1, 0], [0, -1]][this.turns];
    return { x: x * cos + y * sin + this.columns / 2, y: y * cos - x * sin + this.rows / 2 };
  }

  screen(place) {
    const [x, y] = [place.x - this.columns / 2, place.y - this.rows / 2];
    const [cos, sin] = [[1, 0], [0, 1], [-1, 0], [0, -1]][this.turns];
    return {
      x: (x * cos - y * sin) * this.zoomed + this.stage.clientWidth / 2 + this.x,
      y: (x * sin + y * cos) * this.zoomed + this.stage.clientHeight / 2 + this.y,
    };
  }

  drawRuler() {
    if (!this.line) return;
    const [from, to] = this.line.map((one) => this.screen(one));
    this.ruler.removeAttribute("hidden");
    const line = this.ruler.querySelector("line");
    for (const [name, value] of Object.entries({ x1: from.x, y1: from.y, x2: to.x, y2: to.y })) {
      line.setAttribute(name, String(value));
    }
    const text = this.ruler.querySelector("text");
    text.setAttribute("x", String(Math.min(to.x + 8, this.stage.clientWidth - 260)));
    text.setAttribute("y", String(Math.max(16, to.y - 8)));
    text.textContent = this.length();
  }

  length() {
    const [from, to] = this.line;
    const [down, across] = (this.figure.dataset.spacing || "").split("\\").map(Number);
    if (!(down > 0 && across > 0)) {
      return `${Math.round(Math.hypot(to.x - from.x, to.y - from.y))} pixels, uncalibrated`;
    }
    const long = Math.hypot((to.x - from.x) * across, (to.y - from.y) * down).toFixed(1);
    return `${long} mm, ${this.figure.dataset.calibration || "uncalibrated (size at the detector)"}`;
  }
}
