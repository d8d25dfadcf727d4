// The keys of the worklist and of a study: each means the same on both pages.
"use strict";

const Keys = (() => {
  const actions = new Map();
  const held = new Map();
  const dialog = document.getElementById("keys");
  const show = () => dialog.showModal();

  const isTyping = (event) =>
    event.target.closest("input:not([type=checkbox], [type=radio], [type=range]), select, textarea, dialog[open]");
  const isOurs = (event) => !(isTyping(event) || event.ctrlKey || event.altKey || event.metaKey);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      const menu = event.target.closest("details.menu[open]");
      if (menu) menu.open = false;
      else if (isTyping(event) && !event.target.closest("dialog")) event.target.blur();
      return;
    }
    if (!isOurs(event)) return;
    if (held.has(event.key)) {
      event.preventDefault();
      if (!event.repeat) held.get(event.key)(true);
      return;
    }
    const action = actions.get(event.key);
    if (action === undefined) return;
    // A key that is kept down opens or judges nothing that nobody has looked at.
    if (event.repeat && !action.repeats) { event.preventDefault(); return; }
    if (action.run(event) !== false) event.preventDefault();
  });
  document.addEventListener("keyup", (event) => held.get(event.key)?.(false));

  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  const add = (map, repeats = false) => {
    for (const [key, run] of Object.entries(map)) actions.set(key, { run, repeats });
  };
  add({ "?": show });
  // `hold` calls with true when the key goes down, and with false when it is let go.
  return { add, hold: (key, run) => held.set(key, run), show };
})();
