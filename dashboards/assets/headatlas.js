// Everything the browser does alone: colours, the URL, picking heads, the keyboard, table cells, the export menu.
(function () {
  const $ = (selector) => document.querySelector(selector);
  const noUpdate = () => window.dash_clientside.no_update;
  const setProps = (id, props) => window.dash_clientside.set_props(id, props);
  const pageOf = (path) => path.replace(/\/$/, "").split("/").pop();
  const triggered = () => (window.dash_clientside.callback_context.triggered[0] || {}).prop_id || "";

  // ---- colours -------------------------------------------------------------------------------------------------
  const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
  const savedChoice = () => localStorage.getItem("headatlas-scheme") || "auto";
  const resolve = (choice) => (choice === "dark" || (choice === "auto" && systemDark.matches) ? "dark" : "light");
  const paint = (scheme) => document.documentElement.setAttribute("data-mantine-color-scheme", scheme);
  systemDark.addEventListener("change", () => {
    if (savedChoice() === "auto") { paint(resolve("auto")); setProps("scheme", { data: resolve("auto") }); }
  });

  const narrow = window.matchMedia("(max-width: 640px)");  // the width at which the style sheet moves the rail, too
  narrow.addEventListener("change", () => setProps("narrow", { data: narrow.matches }));

  // ---- where we are --------------------------------------------------------------------------------------------
  const DEFAULTS = { limits: "full", view: "one", minus: "nothing" };
  const prefix = () => (document.querySelector('a.ha-logo') || { getAttribute: () => "/" }).getAttribute("href").replace(/\/$/, "");
  const urlFor = (path, state) => {
    const query = new URLSearchParams();
    const runFirst = Object.entries(state).sort(([a], [b]) => (b === "run") - (a === "run"));
    runFirst.forEach(([key, value]) => {
      if (value === null || value === undefined || value === "" || value === false || value === 0) return;
      if (DEFAULTS[key] === value) return;
      query.set(key, value === true ? "1" : value);
    });
    const text = query.toString();
    return prefix() + path + (text ? "?" + text : "");
  };
  const go = (href) => {  // the two steps of dcc.Link
    history.pushState({}, "", href);
    window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
    window.scrollTo(0, 0);
    return "";
  };

  // ---- the atlas -----------------------------------------------------------------------------------------------
  const plot = () => $("#atlas-graph .js-plotly-plot");
  const frame = () => $("#atlas-graph-frame");
  const parse = (name) => { const m = /^L(\d+)H(\d+)$/i.exec(name || ""); return m && [Number(m[1]), Number(m[2])]; };
  const nameOf = (layer, head) => "L" + layer + "H" + head;
  let selected = null, pickedAt = 0;

  const ring = (name) => {
    const graph = plot(), place = parse(name);
    if (!graph || !graph.data) return;
    const traces = graph.data.map((t, i) => (t.meta === "selected" ? i : -1)).filter((i) => i >= 0);
    if (!traces.length) return;
    const [l, h] = place || [0, 0];
    const x = place ? [h - 0.5, h + 0.5, h + 0.5, h - 0.5, h - 0.5] : [];
    const y = place ? [l - 0.5, l - 0.5, l + 0.5, l + 0.5, l - 0.5] : [];
    window.Plotly.restyle(graph, { x: traces.map(() => x), y: traces.map(() => y) }, traces);
  };
  const openHead = (name) => {
    const now = new URLSearchParams(location.search);
    const state = { run: now.get("run"), head: name };
    ["probe", "part", "stratum", "tower"].forEach((key) => { state[key] = now.get(key); });
    go(urlFor("/head", state));
  };
  // Plotly lays a cover over the page while a button is down, so no dblclick arrives; the second click does.
  document.addEventListener("click", (event) => {
    if (event.detail !== 2 || pageOf(location.pathname) !== "atlas") return;
    if (!event.target.closest("#atlas-graph, .ha-table-twin .ag-row")) return;
    setTimeout(() => { if (selected && Date.now() - pickedAt < 1000) openHead(selected); }, 200);
  });

  const headFromPoint = (point) => {
    const trace = plot().data[point.curveNumber];
    if (trace.meta === "cells") return [nameOf(Math.round(point.y), Math.round(point.x)), trace.name];
    if (trace.meta === "undefined") return [nameOf(Math.round(trace.base[point.pointNumber] + 0.47), Math.round(point.x)), null];
    return null;
  };

  const moveHead = (dx, dy) => {
    const layers = Number(frame().dataset.layers), heads = Number(frame().dataset.heads);
    const flipped = $("#atlas-flip") && $("#atlas-flip").checked;
    const [layer, head] = parse(selected) || [flipped ? 0 : layers - 1, -dx];
    const step = flipped ? -dy : dy;
    const to = selected ? [layer + step, head + dx] : [layer, 0];
    const clamp = (value, most) => Math.max(0, Math.min(most - 1, value));
    setProps("atlas-head", { data: nameOf(clamp(to[0], layers), clamp(to[1], heads)) });
  };

  const flatOptions = (data) => (data || []).flatMap((entry) => (entry.items ? entry.items : [entry])).map((o) => o.value || o);

  // ---- export --------------------------------------------------------------------------------------------------
  const toast = (text) => {
    const box = $("#toast");
    box.textContent = text;
    box.classList.add("ha-toast-on");
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => box.classList.remove("ha-toast-on"), 2200);
  };
  const copy = (text, what) => {
    const fallback = () => {
      const area = document.createElement("textarea");
      area.value = text; document.body.appendChild(area); area.select(); document.execCommand("copy"); area.remove();
    };
    const done = () => toast(what + " copied");
    if (navigator.clipboard && window.isSecureContext) navigator.clipboard.writeText(text).then(done, () => { fallback(); done(); });
    else { fallback(); done(); }
  };

  const download = (format, filename) => {  // the picture alone must say what it shows
    const page = pageOf(location.pathname), graph = $("#" + page + "-graph .js-plotly-plot");
    const room = 40, { layout, clientWidth: width, clientHeight } = graph;
    const what = $("#" + page + "-card h2"), query = new URLSearchParams(location.search);
    const text = [what ? what.textContent : "All readings", query.get("stratum"), query.get("edit") || query.get("run")].filter(Boolean).join(" · ");
    const title = { text, x: 0, xref: "paper", xanchor: "left", y: 0, yref: "container", yanchor: "bottom", pad: { b: 14 }, font: { size: 14 } };
    const margin = Object.assign({}, layout.margin, { b: graph._fullLayout.margin.b + room });
    const figure = { data: graph.data, layout: Object.assign({}, layout, { title, margin, height: clientHeight + room }) };
    window.Plotly.downloadImage(figure, { format, filename, width, height: clientHeight + room, scale: 2 });
  };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    headatlas: {
      chooseScheme(choice) {
        localStorage.setItem("headatlas-scheme", choice || "auto");
        const scheme = resolve(choice || "auto");
        paint(scheme);
        return [scheme, narrow.matches];
      },
      syncUrl(...values) {
        const context = window.dash_clientside.callback_context;
        const inputs = context.inputs_list.concat(context.states_list);
        const page = inputs[0].id.split("-")[0];
        if (pageOf(location.pathname) !== page) return "";
        const state = {};
        inputs.forEach((input, i) => { state[input.id.slice(page.length + 1)] = values[i]; });
        history.replaceState(history.state, "", urlFor("/" + page, state));
        setProps("selection", { data: state });
        if (page === "atlas") { selected = state.head || null; ring(selected); }
        return "";
      },
      railLinks(selection, path) {
        const keep = {};
        ["run", "probe", "part", "stratum", "tower", "head"].forEach((key) => { keep[key] = (selection || {})[key]; });
        const toAtlas = Object.assign({}, keep, { probe: (keep.probe || "").split(":")[0] || null });
        const hrefOf = (to) => urlFor(to, to === "/" ? {} : to === "/atlas" ? toAtlas : keep);
        const here = "/" + pageOf((path || "/").slice(prefix().length) || "/");
        const nameFor = (to) => "ha-nav" + (to === here ? " ha-nav-on" : "");
        return window.dash_clientside.callback_context.outputs_list.map(({ id, property }) =>
          property === "href" ? hrefOf(id.path) : nameFor(id.path));
      },
      goToHead(_n, _text, selection) {
        const place = parse($("#search").value.trim());  // the field itself: a fast typist is ahead of the state
        if (!place) { $("#search").select(); return [noUpdate(), "Write a head as L5H1"]; }
        const s = selection || {};
        const kept = { run: s.run, head: nameOf(...place), probe: s.probe, part: s.part };
        go(urlFor("/head", Object.assign(kept, { stratum: s.stratum, tower: s.tower })));
        $("#search").blur();
        return ["", null];
      },
      pickHead(click, cell, current, view) {
        const table = triggered().startsWith("atlas-table");
        const found = table ? cell && [cell.rowId, null] : click && headFromPoint(click.points[0]);
        if (!found || !found[0]) return [noUpdate(), noUpdate()];
        [selected, pickedAt] = [found[0], Date.now()];
        return [found[0], view === "all" && found[1] ? found[1] : noUpdate()];
      },
      changeRun(run) {
        const now = new URLSearchParams(location.search).get("run");
        if (!run || run === now || pageOf(location.pathname) !== "atlas") return noUpdate();
        return go(urlFor("/atlas", { run }));
      },
      changePlace(run, stratum, tower, head, probe) {
        const now = new URLSearchParams(location.search);
        const page = pageOf(location.pathname);
        if (page !== "head" || !triggered()) return noUpdate();
        if (triggered().startsWith("head-run")) return go(urlFor("/head", { run, head }));
        return go(urlFor("/head", { run, head, probe, stratum, tower }));
      },
      changeEdit(edit, run) {
        const now = new URLSearchParams(location.search).get("edit");
        if (!edit || edit === now || !triggered() || pageOf(location.pathname) !== "edits") return noUpdate();
        return go(urlFor("/edits", { run, edit }));
      },
      stepProbe(_previous, _next, probe, data) {
        const names = flatOptions(data);
        const step = triggered().startsWith("atlas-next") ? 1 : -1;
        if (!triggered() || names.length < 2) return noUpdate();
        return names[(names.indexOf(probe) + step + names.length) % names.length];
      },
      exportView(...values) {
        const [python, name] = values.slice(-2);
        const id = triggered();
        if (!id) return "";
        const kind = JSON.parse(id.slice(0, id.lastIndexOf("."))).kind;
        if (kind === "link") copy(location.href, "Link");
        else if (kind === "python") copy(python, "Python");
        else download(kind, pageOf(location.pathname) + "-" + name);
        return "";
      },
    },
  });

  // ---- keyboard ------------------------------------------------------------------------------------------------
  const typing = (target) => target.closest("input, textarea, select, [contenteditable], [role=slider], [role=listbox]");
  const press = (selector) => { const found = $(selector); if (found) found.click(); return Boolean(found); };
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  const STEPS = { ArrowLeft: "previous", ArrowRight: "next", ArrowUp: "up", ArrowDown: "down" };

  const stepReading = (step) => {
    const rows = [...document.querySelectorAll(".ha-readings .mantine-Accordion-control")];
    const at = rows.findIndex((row) => row.getAttribute("aria-expanded") === "true");
    const next = rows[Math.max(0, Math.min(rows.length - 1, at + step))];
    if (next && next !== rows[at]) { next.click(); next.scrollIntoView({ block: "nearest" }); }
    return true;
  };
  const onAtlas = (event) => {
    const inTable = event.target.closest(".ha-grid");
    if (event.key in ARROWS && !inTable) { moveHead(...ARROWS[event.key]); return true; }
    if (event.key === "Enter" && selected && !event.target.closest("button, a, summary, .ha-grid")) { openHead(selected); return true; }
    if (event.key === "[") return press("#atlas-previous");
    if (event.key === "]") return press("#atlas-next");
    if (event.key === "Escape" && selected) { setProps("atlas-head", { data: null }); return true; }
    return false;
  };
  const onHead = (event) => {
    if (event.key in STEPS && !event.target.closest("[role=radiogroup], .mantine-Accordion-control")) return press('[data-step="' + STEPS[event.key] + '"] a');
    if (event.key === "[") return stepReading(-1);
    if (event.key === "]") return stepReading(1);
    if (event.key === "Escape") return press('a.ha-nav[href*="/atlas"]');
    return false;
  };
  const onEdits = (event) => {
    if (event.key === "[") return press('[data-step="previous"] a');
    if (event.key === "]") return press('[data-step="next"] a');
    if (event.key === "Escape") return press("#edits-atlas") || press('a.ha-nav[href*="/atlas"]');
    return false;
  };
  const handle = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (event.target.id === "search" && event.key === "Escape") { event.target.blur(); return true; }
    if (typing(event.target) || $(".mantine-Modal-content") || $("[role=menu]")) return false;
    if (event.key === "/") { $("#search").focus(); $("#search").select(); return true; }
    if (event.key === "?") return press("#help-open");
    const cell = event.target.closest(".ag-cell");
    if (cell && event.key === "Enter") {
      const link = cell.parentElement.querySelector("a");
      if (link) link.click(); else openHead(cell.parentElement.getAttribute("row-id"));
      return true;
    }
    const page = pageOf(location.pathname);
    if (page === "atlas") return Boolean(frame()) && onAtlas(event);  // the address changes before the page does
    return page === "edits" ? onEdits(event) : page === "head" && onHead(event);
  };
  document.addEventListener("keydown", (event) => { if (handle(event)) event.preventDefault(); });

  // ---- table cells ---------------------------------------------------------------------------------------------
  const functions = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
  functions.fourFigures = (value) => {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size > 0 && size < 0.0005) return value.toExponential(1);
    const digits = size < 10 ? 3 : size < 100 ? 2 : size < 1000 ? 1 : 0;
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  functions.threeFigures = (value) => {
    if (value === null || value === undefined || !isFinite(value)) return "–";
    const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.max(Math.abs(value), 1))));
    return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };
  functions.signedFigures = (value) => (value > 0 ? "+" : "") + functions.fourFigures(value);
  functions.signedEffect = (value) => (value > 0 ? "+" : "") + functions.threeFigures(value);
  functions.smallShare = (value) => (value !== null && value < 0.001 ? "<0.001" : functions.fourFigures(value));
  functions.emptyLast = (a, b, _p, _q, descending) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return descending ? -1 : 1;
    if (b === null || b === undefined) return descending ? 1 : -1;
    return a - b;
  };
  functions.byHead = (a, b) => { const [p, q] = [parse(a), parse(b)]; return p[0] - q[0] || p[1] - q[1]; };

  const components = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
  const make = (...parts) => window.React.createElement(...parts);
  components.RunLink = (props) => {
    if (props.data.status === "unreadable") return make("span", { className: "ha-muted" }, "unreadable");
    const link = (run, className, title, text) => {
      const edit = props.data.page === "/edits" && run === props.data.run_id;
      const href = edit ? urlFor("/edits", { edit: run }) : urlFor("/atlas", { run });
      const click = (event) => { if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); event.stopPropagation(); go(href); } };
      return make("a", { href, onClick: click, className, title }, text);
    };
    const own = link(props.data.run_id, "ha-run-link", props.data.page === "/edits" ? "Open this edit" : "Open the atlas of this run", props.value);
    if (!props.data.baseline) return own;
    const title = "Baseline of " + props.data.parent + ": open that run";
    return make("span", { className: "ha-run-names" }, own, link(props.data.parent, "ha-badge ha-baseline", title, props.data.baseline));
  };
  const KINDS = { done: "good", running: "busy", interrupted: "warn", failed: "bad", unreadable: "bad" };
  components.StatusBadge = (props) => make("span", { className: "ha-badge ha-badge-" + (KINDS[props.value] || "plain") }, props.value);
  components.ProgressBar = (props) =>
    make("span", { className: "ha-progress" },
      make("span", { className: "ha-progress-track" }, make("span", { style: { width: props.value + "%" } })),
      make("span", { className: "ha-number" }, Math.floor(props.value) + " %"));

  const sliders = (window.dashMantineFunctions = window.dashMantineFunctions || {});
  sliders.topLabel = (value) => (value ? "top " + value : "all");
})();
