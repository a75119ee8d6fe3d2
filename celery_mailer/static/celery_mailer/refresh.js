// Keeps a part of a page up to date: `<div id="x" data-mailer-refresh="SECONDS">` is fetched again
// with its page, or with the one of `data-mailer-url`.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
    for (const part of document.querySelectorAll("[data-mailer-refresh][id]")) {
        const box = document.querySelector(`[data-mailer-refreshes="${part.id}"]`);
        const stale = document.querySelector("[data-mailer-stale]");
        const seconds = Number(part.dataset.mailerRefresh);
        let shown = part.innerHTML;

        async function refresh() {
            // Nobody looks, or somebody asked for rest, or is about to act on what they see.
            if (document.hidden || box?.checked === false || part.querySelector("details[open]")) {
                return;
            }
            const response = await fetch(part.dataset.mailerUrl || location.href, {headers: {"X-Requested-With": "mailer-refresh"}});
            const page = new DOMParser().parseFromString(await response.text(), "text/html");
            const fresh = page.getElementById(part.id);
            if (!response.ok || !fresh) {
                throw new Error(response.statusText);
            }
            if (fresh.innerHTML !== shown) {
                const focus = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
                shown = fresh.innerHTML;
                part.replaceChildren(...fresh.childNodes);
                if (focus) {
                    part.querySelector(`[href="${CSS.escape(focus)}"]`)?.focus({preventScroll: true});
                }
            }
        }

        async function again() {
            try {
                await refresh();
                stale?.replaceChildren();
            } catch {
                stale?.replaceChildren(stale.dataset.mailerStale);
            }
            setTimeout(again, seconds * 1000);
        }

        setTimeout(again, Math.min(seconds, 2) * 1000);
    }
});
