// A refresh or a button that fails must show: figures that stand still look like calm.
"use strict";
(() => {
  const say = (text) => {
    const place = document.getElementById("operations-fault");
    if (place) place.textContent = text;
  };
  document.addEventListener("htmx:responseError", (event) => {
    say(`Not refreshed: the server answered ${event.detail.xhr.status}. The figures below are old.`);
  });
  document.addEventListener("htmx:sendError", () => {
    say("Not refreshed: the server does not answer. The figures below are old.");
  });
  document.addEventListener("htmx:afterSwap", () => say(""));
})();
