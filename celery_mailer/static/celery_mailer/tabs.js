// Makes tabs of sections that stand one below the other (W3C ARIA Authoring Practices, "Tabs").
"use strict";

window.mailerTabs = (() => {
    let number = 0;

    function button(panel, label, list) {
        const tab = document.createElement("button");
        panel.id ||= `mailer-panel-${++number}`;
        tab.type = "button";
        tab.id = `${panel.id}-tab`;
        tab.textContent = label;
        tab.setAttribute("role", "tab");
        tab.setAttribute("aria-controls", panel.id);
        tab.classList.toggle("errors", panel.querySelector(".errorlist") !== null);
        tab.addEventListener("click", () => choose(list, tab));
        panel.setAttribute("role", "tabpanel");
        panel.setAttribute("aria-labelledby", tab.id);
        panel.classList.add("mailer-tabbed");
        return tab;
    }

    function choose(list, chosen) {
        for (const tab of list.children) {
            const selected = tab === chosen;
            tab.setAttribute("aria-selected", selected);
            tab.tabIndex = selected ? 0 : -1;
            document.getElementById(tab.getAttribute("aria-controls")).hidden = !selected;
        }
        list.dispatchEvent(new CustomEvent("mailer:tab", {detail: chosen.getAttribute("aria-controls")}));
    }

    function move(event) {
        const tabs = [...event.currentTarget.children], at = tabs.indexOf(document.activeElement);
        const to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1}[event.key];
        if (at >= 0 && to !== undefined) {
            event.preventDefault();
            const tab = tabs.at(to % tabs.length);
            tab.focus();
            tab.click();
        }
    }

    // Fills `list` with a tab for each of `panels`, [element, label]; shows `active`, else the first with errors.
    function fill(list, panels, active) {
        list.replaceChildren(...panels.map(([panel, label]) => button(panel, label, list)));
        const tabs = [...list.children];
        const wanted = tabs.find(tab => active && tab.getAttribute("aria-controls") === active.id);
        choose(list, wanted || tabs.find(tab => tab.classList.contains("errors")) || tabs[0]);
    }

    function list(label) {
        const element = document.createElement("div");
        element.className = "mailer-tabs";
        element.setAttribute("role", "tablist");
        element.setAttribute("aria-label", label);
        element.addEventListener("keydown", move);
        return element;
    }

    document.addEventListener("DOMContentLoaded", () => {
        for (const group of document.querySelectorAll("[data-mailer-tabs]")) {
            const panels = [...group.children].map(panel => [panel, panel.dataset.tab]);
            const tabs = list(group.dataset.mailerTabs);
            group.prepend(tabs);
            fill(tabs, panels);
        }
    });

    return {fill, list};
})();
