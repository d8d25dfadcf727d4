// The page of a study: its images, the prior beside them, the verdict, and the way to the next study.
"use strict";
(() => {
  const viewers = [...document.querySelectorAll("figure.viewer")].map((figure) => new Viewer(figure));
  const chosen = () => viewers.find((viewer) => !viewer.figure.hidden);
  const verdict = document.getElementById("verdict");

  for (const button of document.querySelectorAll(".chooser [data-image]")) {
    button.addEventListener("click", () => {
      for (const one of document.querySelectorAll(".chooser [data-image]")) {
        one.setAttribute("aria-pressed", String(one === button));
      }
      for (const viewer of viewers) {
        viewer.figure.hidden = viewer.figure.dataset.image !== button.dataset.image;
      }
      chosen().show();
      link();
    });
  }

  // ---- the prior ------------------------------------------------------------------------------

  const place = document.getElementById("prior");
  let prior = null;

  function link() {
    for (const one of viewers) one.linked = [];
    if (prior === null || !chosen().stage) return;
    level();
    prior.linked = [chosen()];
    chosen().linked = [prior];
    chosen().share();
  }

  // Both images begin at the same height, however many lines the buttons above one take.
  function level() {
    if (prior === null) return;
    place.style.paddingTop = "0";
    const lower = chosen().stage.getBoundingClientRect().top - prior.stage.getBoundingClientRect().top;
    place.style.paddingTop = `${Math.max(0, lower)}px`;
  }
  addEventListener("resize", level);

  async function compare(address) {
    const answer = await fetch(address, { redirect: "error" }).catch(() => null);
    if (answer === null || !answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    place.replaceChildren(...page.body.children);
    place.hidden = false;
    document.querySelector(".film").classList.add("compared");
    prior = new Viewer(place.querySelector("figure"));
    if (!prior.stage) prior = null;
    place.querySelector("[data-close]")?.addEventListener("click", close);
    link();
    place.scrollIntoView({ block: "nearest" });
  }

  function close() {
    prior = null;
    place.replaceChildren();
    place.hidden = true;
    document.querySelector(".film").classList.remove("compared");
    link();
  }

  for (const button of document.querySelectorAll("[data-prior]")) {
    button.addEventListener("click", () => compare(button.dataset.prior));
  }

  function toggle() {
    if (!place.hidden) close();
    else if (place.dataset.address) compare(place.dataset.address);
  }

  // ---- the verdict ----------------------------------------------------------------------------

  async function judge(form, submitter) {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form, submitter)),
      headers: { "HX-Request": "true" },
    }).catch(() => null);
    if (answer?.status === 401) { location.reload(); return; }
    const fault = verdict.querySelector(".verdict-fault");
    if (answer === null) { fault.textContent = "Verdict not saved: the server does not answer."; return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!answer.ok) {
      fault.textContent = `Verdict not saved. ${page.querySelector(".fault")?.textContent.trim() ?? ""}`;
      return;
    }
    verdict.replaceChildren(...page.body.children);
    document.activeElement?.blur();
  }

  verdict.addEventListener("submit", (event) => {
    event.preventDefault();
    const buttons = verdict.querySelectorAll(".opinions button");
    if (verdict.dataset.busy) return;
    verdict.dataset.busy = "true";
    // Pressed once is judged once: the buttons come back with the answer.
    judge(event.target, event.submitter ?? buttons[0]).finally(() => { delete verdict.dataset.busy; });
  });

  const give = (opinion) => verdict.querySelector(`button[value="${opinion}"]`)?.click();

  // ---- keys -----------------------------------------------------------------------------------

  const follow = (rel) => document.querySelector(`.walk a[rel="${rel}"]`)?.click();
  const back = document.querySelector(".walk a[rel=up]");
  Keys.add({
    j: () => follow("next"),
    k: () => follow("prev"),
    b: () => back.click(),
    r: () => location.reload(),
    "/": () => location.assign(`${back.href.split("#")[0]}#text`),
    a: () => give("agree"),
    d: () => give("disagree"),
    n: () => give("not applicable"),
    c: () => verdict.querySelector("textarea")?.focus(),
    p: toggle,
  });
  const acts = { o: "overlay", h: "key", i: "invert", t: "turn", s: "stated", w: "window", v: "move", m: "measure", 0: "reset", 1: "real" };
  Keys.add(Object.fromEntries(Object.entries(acts).map(([key, what]) => [key, () => chosen()?.act(what)])));
  Keys.add({ "+": () => chosen()?.act("in"), "=": () => chosen()?.act("in"), "-": () => chosen()?.act("out") }, true);
  Keys.hold("f", () => chosen()?.stage && chosen().lay("overlay"));
  document.getElementById("show-keys").addEventListener("click", Keys.show);
})();
