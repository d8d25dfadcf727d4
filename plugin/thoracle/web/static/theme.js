// Dark or light: what the person chose, else what the system prefers. Loaded before the first paint, so
// nothing flashes.
"use strict";
(() => {
  const root = document.documentElement;
  const light = matchMedia("(prefers-color-scheme: light)");
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const show = () => { root.dataset.theme = kept() ?? (light.matches ? "light" : "dark"); };
  show();
  light.addEventListener("change", show);
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const theme = root.dataset.theme === "light" ? "dark" : "light";
      root.dataset.theme = theme;
      try { localStorage.setItem("theme", theme); } catch { /* private window: for this page */ }
    });
  });
})();
