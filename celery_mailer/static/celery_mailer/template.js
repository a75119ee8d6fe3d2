// The page of a template: a tab for each language, and a preview of what is typed.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
    const page = document.getElementById("mailer-template");
    const words = document.querySelector("fieldset.mailer-words");
    const group = document.getElementById("translated_templates-group");
    const preview = document.getElementById("mailer-preview");
    if (!page || !words || !group) {
        return;
    }
    const tabs = mailerTabs.list(page.dataset.label);
    let shown = null, timer = null, latest = null;

    function label(panel) {
        const select = panel.querySelector("select[name$=language]");
        const language = select ? select.value && select.selectedOptions[0].text : panel.querySelector(".field-language .readonly")?.textContent;
        return language || (panel === words ? page.dataset.default : page.dataset.new);
    }

    function refresh() {
        const rows = [...group.querySelectorAll(".inline-related:not(.empty-form)")];
        mailerTabs.fill(tabs, [words, ...rows].map(panel => [panel, label(panel)]), shown);
    }

    words.before(tabs);
    tabs.addEventListener("mailer:tab", event => {
        shown = document.getElementById(event.detail);
        schedule(0);
    });
    document.addEventListener("formset:added", event => {
        shown = event.target;
        refresh();
    });
    document.addEventListener("formset:removed", () => {
        shown = words;
        refresh();
    });
    group.closest("form").addEventListener("change", event => {
        if (event.target.matches("select[name$=language]")) {
            refresh();
        }
    });

    // The preview.

    function schedule(after) {
        clearTimeout(timer);
        timer = preview && setTimeout(show, after);
    }

    function value(prefix, name) {
        return document.getElementById(`id_${prefix}${name}`)?.value ?? "";
    }

    async function show() {
        const prefix = shown === words ? "" : `${shown.id}-`;
        const body = new FormData();
        for (const name of ["language", "subject", "content", "html_content"]) {
            body.append(name, value(prefix, name));
        }
        body.append("variables", value(prefix, "variables").trim() || value("", "variables"));
        body.append("email", document.getElementById("mailer-context").value);
        latest?.abort();
        latest = new AbortController();
        try {
            const response = await fetch(preview.dataset.url, {
                method: "POST", body, signal: latest.signal,
                headers: {"X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value},
            });
            fill(response.ok ? await response.json() : {faults: {"": [`${response.status} ${response.statusText}`]}});
        } catch (error) {
            if (error.name !== "AbortError") {
                fill({faults: {"": [error.message]}});
            }
        }
    }

    function tell(id, text) {
        const place = document.getElementById(id);
        place.textContent = text;
        place.hidden = !text;
    }

    function fill(result) {
        const prefix = shown === words ? "" : `${shown.id}-`;
        const faults = Object.entries(result.faults).map(([field, texts]) => {
            const label = document.querySelector(`label[for="id_${prefix}${field}"]`);
            return `${label ? label.textContent + " " : ""}${texts.join(" ")}`;
        });
        tell("mailer-faults", faults.join(" "));
        if ("html" in result) {
            tell("mailer-note", result.note);
            document.getElementById("mailer-subject").textContent = result.subject;
            document.getElementById("mailer-text").textContent = result.text;
            preview.querySelector("iframe").srcdoc = result.html;
        }
    }

    if (preview) {
        group.after(preview);  // above the buttons that save: it shows what is being typed
        preview.hidden = false;
        document.getElementById("mailer-context").addEventListener("change", () => schedule(0));
        group.closest("form").addEventListener("input", () => schedule(400));
    }
    refresh();
});
