// A session that has ended leaves no page with patients on the screen: asked each half minute, and
// when the page is seen again, e.g. by the back button after the log-out.
"use strict";
(() => {
  const SECONDS = 30;
  const look = async () => {
    if (document.visibilityState === "hidden") return;
    const answer = await fetch("/api/whoami", { headers: { "X-Automatic": "1" } }).catch(() => null);
    if (answer !== null && answer.status === 401) location.reload();
  };
  setInterval(look, SECONDS * 1000);
  document.addEventListener("visibilitychange", look);
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
})();
