// Dark unless the person chose light. Loaded before the first paint, so nothing flashes.
"use strict";
(() => {
  const root = document.documentElement;
  const kept = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  root.dataset.theme = kept() === "light" ? "light" : "dark";
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const theme = root.dataset.theme === "light" ? "dark" : "light";
      root.dataset.theme = theme;
      try { localStorage.setItem("theme", theme); } catch { /* private window: for this page */ }
    });
  });
})();
