"use strict";
// Zoom and move a radiograph, lay on it what the model used, and choose among images.
// A transformation is set through the object model alone: the policy of the pages allows no style.
(() => {
  const LARGEST = 12;
  const STEP = 1.25;
  const MOVE = 60;

  class Viewer {
    constructor(figure) {
      this.figure = figure;
      this.stage = figure.querySelector(".stage[tabindex]");
      figure.querySelectorAll("[data-do]").forEach((button) => {
        button.addEventListener("click", () => this.act(button.dataset.do));
      });
      if (!this.stage) return;
      this.sheet = figure.querySelector(".sheet");
      this.shown = figure.querySelector("[data-zoom]");
      this.pointers = new Map();
      this.reset();
      this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      this.stage.addEventListener("pointerdown", (event) => this.down(event));
      this.stage.addEventListener("pointermove", (event) => this.move(event));
      for (const kind of ["pointerup", "pointercancel"]) {
        this.stage.addEventListener(kind, (event) => this.up(event));
      }
      this.stage.addEventListener("dblclick", () => this.reset());
      this.stage.addEventListener("keydown", (event) => this.key(event));
      const image = figure.querySelector(".radiograph");
      const broken = () => {
        this.sheet.hidden = true;
        figure.querySelector(".broken").hidden = false;
      };
      image.addEventListener("error", broken);
      if (image.complete && image.naturalWidth === 0 && image.loading !== "lazy") broken();
    }

    reset() { this.scale = 1; this.x = 0; this.y = 0; this.draw(); }

    draw() {
      this.sheet.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
      this.shown.textContent = `${Math.round(this.scale * 100)} %`;
    }

    // Keeps the place under the point where it is; the point is in pixels of the window.
    zoom(factor, point) {
      const scale = Math.min(LARGEST, Math.max(1, this.scale * factor));
      if (scale === 1) { this.reset(); return; }
      const box = this.sheet.getBoundingClientRect();
      const around = point || this.middle();
      const real = scale / this.scale;
      this.x -= (around.x - box.left) * (real - 1);
      this.y -= (around.y - box.top) * (real - 1);
      this.scale = scale;
      this.confine();
      this.draw();
    }

    pan(x, y) { this.x += x; this.y += y; this.confine(); this.draw(); }

    // Some of the image stays in sight.
    confine() {
      const most = (whole, part) => whole / 2 + part * this.scale;
      const across = most(this.stage.clientWidth, this.sheet.offsetWidth);
      const along = most(this.stage.clientHeight, this.sheet.offsetHeight);
      this.x = Math.min(across, Math.max(-across, this.x));
      this.y = Math.min(along, Math.max(-along, this.y));
    }

    middle() {
      const box = this.stage.getBoundingClientRect();
      return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
    }

    wheel(event) {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? STEP : 1 / STEP, { x: event.clientX, y: event.clientY });
    }

    down(event) {
      if (event.button !== 0) return;
      this.stage.setPointerCapture(event.pointerId);
      this.stage.classList.add("held-fast");
      this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    }

    move(event) {
      const before = this.pointers.get(event.pointerId);
      if (!before) return;
      const now = { x: event.clientX, y: event.clientY };
      if (this.pointers.size === 2) {
        const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const apart = (one) => Math.hypot(one.x - other.x, one.y - other.y);
        if (apart(before) > 0) {
          this.zoom(apart(now) / apart(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
        }
      } else {
        this.pan(now.x - before.x, now.y - before.y);
      }
      this.pointers.set(event.pointerId, now);
    }

    up(event) {
      this.pointers.delete(event.pointerId);
      if (this.pointers.size === 0) this.stage.classList.remove("held-fast");
    }

    key(event) {
      const keys = {
        "+": () => this.zoom(STEP), "=": () => this.zoom(STEP), "-": () => this.zoom(1 / STEP),
        "0": () => this.reset(), Home: () => this.reset(),
        ArrowLeft: () => this.pan(MOVE, 0), ArrowRight: () => this.pan(-MOVE, 0),
        ArrowUp: () => this.pan(0, MOVE), ArrowDown: () => this.pan(0, -MOVE),
      };
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    }

    act(what) {
      switch (what) {
        case "in": this.stage && this.zoom(STEP); break;
        case "out": this.stage && this.zoom(1 / STEP); break;
        case "reset": this.stage && this.reset(); break;
        case "invert": this.invert(); break;
        case "overlay": this.lay("overlay"); break;
        case "key": this.lay("key"); break;
      }
    }

    invert() {
      const image = this.figure.querySelector(".radiograph");
      if (image) this.press("invert", image.classList.toggle("inverted"));
    }

    lay(name) {
      const image = this.figure.querySelector(`img.${name}`);
      if (!image) return;
      if (!image.src) image.src = image.dataset.src;
      image.hidden = !image.hidden;
      this.press(name, !image.hidden);
    }

    press(what, on) {
      this.figure.querySelector(`[data-do="${what}"]`).setAttribute("aria-pressed", String(on));
    }
  }

  const viewers = [...document.querySelectorAll("figure.viewer")].map((figure) => new Viewer(figure));
  const chosen = () => viewers.find((viewer) => !viewer.figure.hidden);

  document.querySelectorAll(".chooser [data-image]").forEach((button) => {
    button.addEventListener("click", () => {
      document.querySelectorAll(".chooser [data-image]").forEach((one) => {
        one.setAttribute("aria-pressed", String(one === button));
      });
      viewers.forEach((viewer) => {
        viewer.figure.hidden = viewer.figure.dataset.image !== button.dataset.image;
      });
    });
  });

  // Everywhere on the page, but where somebody types.
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || !chosen()) return;
    const keys = { o: "overlay", k: "key", i: "invert", "+": "in", "-": "out", "0": "reset" };
    if (event.key in keys) { event.preventDefault(); chosen().act(keys[event.key]); }
  });
})();
