/* The page: sections as text, one state, events by delegation. */
"use strict";

const COLORS = ["#d1495b", "#e08a1e", "#2a9d6f", "#8a5cd1", "#b5651d", "#14808f", "#c2418f", "#6b7a1f"];
const PAGE = 40;

/* What the reader chose. results: documents; sources: decision logs [{name, result, policy, list | gz, bad}]. */
function newState(results, sources) {
    const s = {results, sources, result: 0, sort: "ttft", down: false, on: new Set(), source: 0, want: {id: "", worker: "", held: false, sort: "", down: false}, page: 0, open: null};
    s.lists = results.map(policiesOf);
    choosePolicies(s);
    return s;
}

/* At first: ours, the reference, and the best setting of each of the best six others. */
function choosePolicies(s) {
    const list = s.lists[s.result] || [], seen = new Set();
    s.on = new Set();
    for (const p of list) {
        if (p.ours) s.on.add(p.name);
        else if (!seen.has(p.policy) && seen.size < 6) seen.add(p.policy), s.on.add(p.name);
    }
    s.colors = new Map();
    let k = 0;
    for (const p of list) if (s.on.has(p.name)) s.colors.set(p.name, p.ours ? "var(--ours)" : COLORS[k++ % COLORS.length]);
}
function colorOf(s, p) {
    if (!s.colors.has(p.name)) s.colors.set(p.name, p.ours ? "var(--ours)" : COLORS[s.colors.size % COLORS.length]);
    return s.colors.get(p.name);
}

function table(head, rows, attributes = "") {
    return `<div class="scroll"><table ${attributes}><thead><tr>${head}</tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
}

/* key, group, head, value, cell, 1: more is better, 0: no best */
const COLUMNS = [
    ["name", "", "policy", p => p.name, p => `<td class="name" title="${esc(p.name)}">${esc(p.policy)} <span class="soft">${esc(p.settings.replace(/,/g, " "))}</span></td>`, 0],
    ["ttft", "TTFT, s", "mean", p => p.ttft.mean], ["ci", "TTFT, s", "± 95 %", p => (p.ttft.high - p.ttft.low) / 2, null, 0], ["p50", "TTFT, s", "p50", p => p.p50],
    ["p90", "TTFT, s", "p90", p => p.p90], ["p99", "TTFT, s", "p99", p => p.p99], ["longest", "TTFT, s", "longest", p => p.longest],
    ["held", "held, s", "longest", p => p.held], ["tpot", "TPOT, ms", "mean", p => p.tpot], ["tpot99", "TPOT, ms", "p99", p => p.tpot99],
    ...GOODPUT.map(([k, text]) => ["g" + k, "goodput", text, p => p.goodput[k], null, 1]),
    ["hit", "cached", "of prompts", p => p.hit, (p, v) => `<td>${percent(v)}</td>`, 1], ["ofIdeal", "cached", "of ideal", p => p.ofIdeal, (p, v) => `<td>${percent(v, 0)}</td>`, 1],
    ["cov", "load", "CoV", p => p.cov], ["moved", "moved", "GB", p => p.moved / 1e9, null, 0], ["local", "requests", "decode only", p => p.local, null, 0],
    ["refused", "requests", "refused", p => p.refused], ["preempted", "requests", "preempted", p => p.preempted],
];

function groups() {
    const out = [];
    for (const [, group] of COLUMNS) out.length && out[out.length - 1][0] === group ? out[out.length - 1][1]++ : out.push([group, 1]);
    return out.map(([group, n]) => `<th colspan="${n}"${group ? ' class="group"' : ""}>${esc(group)}</th>`).join("");
}
function summary(s) {
    const list = s.lists[s.result].slice(), value = (COLUMNS.find(c => c[0] === s.sort) || COLUMNS[1])[3], sign = s.down ? -1 : 1;
    list.sort((a, b) => {
        const x = value(a), y = value(b);
        return sign * (typeof x === "string" ? x.localeCompare(y) : (known(x) ? x : Infinity) - (known(y) ? y : Infinity)) || 0;
    });
    const best = Object.fromEntries(COLUMNS.map(([k, , , f, , up]) => {
        const v = list.map(f).filter(known);
        return [k, up === 0 || new Set(v).size < 2 ? NaN : up ? Math.max(...v) : Math.min(...v)];
    }));
    const head = COLUMNS.map(([k, , text]) => `<th data-sort="${k}"${k === s.sort ? ' class="sorted"' : ""}>${esc(text)}${k === s.sort ? (s.down ? " ▾" : " ▴") : ""}</th>`).join("");
    const rows = list.map(p => `<tr${p.ours ? ' class="ours"' : ""}>` + COLUMNS.map(([k, , , f, cell]) => {
        const v = f(p), text = cell ? cell(p, v) : `<td>${num(v)}</td>`;
        return v === best[k] ? text.replace(/<td>(.*)<\/td>/, "<td><b>$1</b></td>") : text;
    }).join("") + "</tr>");
    return `<h2>All policies</h2><p class="soft">Means over seeds; “longest” is the worst of all seeds. Goodput: the part of all requests whose TTFT and TPOT are within the limits; scaled: TTFT ≤ 1 s + 3 T(in, 0), TPOT ≤ 50 ms. TTFT runs from the arrival at the gateway until the prompt is computed. Bold: the best of its column. A click on a head sorts.</p>` +
        table(groups() + `</tr><tr>` + head, rows, 'class="wide"');
}

/* Of the policies in the plots, tenant by tenant. */
const TENANTS = 24;
function tenants(s) {
    const list = s.lists[s.result].filter(p => s.on.has(p.name) && p.tenants.length);
    if (!list.length) return "";
    const head = ["policy", "tenant", "priority", "requests", "TTFT mean, s", "± 95 %", "p50", "p99", "longest", "longest wait, s", ...GOODPUT.map(([, text]) => "goodput " + text), "prefill work", "refused"]
        .map((text, i) => `<th${i < 2 ? ' class="left"' : ""}>${esc(text)}</th>`).join("");
    const rows = list.flatMap(p => p.tenants.slice(0, TENANTS).map((t, i) => `<tr${p.ours ? ' class="ours"' : ""}><td class="name" title="${esc(p.name)}">${i ? "" : `${esc(p.policy)} <span class="soft">${esc(p.settings.replace(/,/g, " "))}</span>`}</td>` +
        `<td class="name left" title="${esc(t.name)}">${t.name === "" ? "–" : esc(t.name)}</td><td>${esc(t.priority)}</td>` + [t.requests, t.ttft.mean, (t.ttft.high - t.ttft.low) / 2, t.p50, t.p99, t.longest, t.wait, ...GOODPUT.map(([k]) => t.goodput[k])].map(v => `<td>${num(v)}</td>`).join("") +
        `<td>${percent(t.work)}</td><td>${num(t.refused)}</td></tr>`));
    const more = Math.max(...list.map(p => p.tenants.length)) - TENANTS;
    return `<h2>Tenants</h2><p class="soft">Of the policies in the plots. The wait runs from the arrival until the prompt's service begins, in the router or at a server, or until the request is refused; prefill work: the part of all that was done.${more > 0 ? ` ${more} more tenants are in the result.` : ""}</p>` +
        table(head, rows, 'class="wide"');
}

const TAIL = q => q >= 1 ? 2.4 : -Math.log10(1 - q);
function quantilePlot(s, id, title, unit, values) {
    const qs = Array.from({length: 101}, (_, i) => i / 100), list = s.lists[s.result].filter(p => values(p).length === 101);
    const svg = linePlot({
        id, title, xs: qs.map(TAIL), xTicks: [[0, "0"], [TAIL(.5), "50 %"], [1, "90 %"], [TAIL(.99), "99 %"], [2.4, "all"]], xLabel: "part of the requests", yLabel: unit, log: true,
        lines: list.map(p => ({name: p.name, ys: values(p).map(v => v > 0 ? v : NaN), color: colorOf(s, p), strong: p.ours, faint: !s.on.has(p.name)})),
    });
    return svg && `<figure><figcaption>${esc(title)}</figcaption>${svg}</figure>`;
}
function seriesPlot(s, id, title, unit, column) {
    const list = s.lists[s.result].filter(p => p.series && s.on.has(p.name));
    if (!list.length) return "";
    const t = list[0].series.t, svg = linePlot({
        id, title, xs: t, xTicks: ticks(t[0], t[t.length - 1]).map(x => [x, trim(x)]), xLabel: "s since begin, by arrival", yLabel: unit, from0: true,
        lines: list.map(p => ({name: p.name, ys: p.series[column], color: colorOf(s, p), strong: p.ours})),
    });
    return svg && `<figure><figcaption>${esc(title)}</figcaption>${svg}</figure>`;
}
function plots(s) {
    const list = s.lists[s.result], figure = (title, svg) => svg && `<figure><figcaption>${esc(title)}</figcaption>${svg}</figure>`;
    const shown = list.filter(p => s.on.has(p.name));
    return `<div class="plots">` +
        figure("Mean TTFT, s, with its 95 % interval over seeds; tick: p99", barPlot({
            title: "mean TTFT", xLabel: "s, logarithmic", log: true,
            rows: shown.map(p => ({name: p.name, value: p.ttft.mean, low: p.ttft.low, high: p.ttft.high, mark: p.p99, color: colorOf(s, p), strong: p.ours}))})) +
        figure("Goodput: TTFT ≤ 2 s and TPOT ≤ 50 ms; tick: the length-scaled limit 1 s + 3 T(in)", barPlot({
            title: "goodput", xLabel: "part of all requests",
            rows: shown.map(p => ({name: p.name, value: p.goodput["2s_50ms"], mark: p.goodput.scaled_50ms, color: colorOf(s, p), strong: p.ours}))})) +
        quantilePlot(s, "ttft", "TTFT by quantile, s", "s", p => p.ttftQuantiles) +
        quantilePlot(s, "tpot", "TPOT by quantile, ms", "ms", p => p.tpotQuantiles) +
        seriesPlot(s, "series", "TTFT of the requests that arrived then, s", "s", "ttft") +
        seriesPlot(s, "queue", "Requests waiting: held in the router or queued at a prefill worker", "requests", "queued") +
        figure("Cache hits against waiting", dotPlot({
            title: "hits and TTFT", log: true, xLabel: "prompt tokens found cached", yLabel: "mean TTFT, s", xText: x => percent(x, 0),
            dots: list.map(p => ({name: p.name, x: p.hit, y: p.ttft.mean, color: s.on.has(p.name) ? colorOf(s, p) : "", strong: p.ours}))})) +
        figure("Spread of load against waiting", dotPlot({
            title: "load and TTFT", log: true, xLabel: "coefficient of variation of the prefill workers' busy time", yLabel: "mean TTFT, s",
            dots: list.map(p => ({name: p.name, x: p.cov, y: p.ttft.mean, color: s.on.has(p.name) ? colorOf(s, p) : "", strong: p.ours}))})) +
        `</div>`;
}
function legend(s) {
    return `<div class="legend" role="group" aria-label="policies in the plots">` + s.lists[s.result].map(p => {
        const on = s.on.has(p.name);
        return `<button data-policy="${esc(p.name)}" aria-pressed="${on}"><i${on ? ` style="background:${colorOf(s, p)}"` : ""}></i>${esc(p.name)}</button>`;
    }).join("") + `</div>`;
}

const showArgument = v => Array.isArray(v) ? v.join(" ") : v !== null && typeof v === "object" ? JSON.stringify(v) : String(v);
function heading(s) {
    const doc = s.results[s.result], a = doc.arguments || {}, t = doc.trace || {};
    const shape = known(a.prefill) && known(a.decode) ? `${a.prefill} prefill and ${a.decode} decode workers` : "";
    const rate = known(a.rate) ? `rate × ${trim(a.rate)}` : "";
    const title = doc.title || [t.name || a.trace || "trace", shape, rate].filter(Boolean).join(", ");
    let h = `<h1>${esc(title)}</h1><p class="soft">` +
        [known(t.requests) && `${num(t.requests)} requests`, known(t.prompt_tokens) && `${num(t.prompt_tokens / 1e6)} M prompt tokens`,
         known(t.ideal_hit) && `${percent(t.ideal_hit)} of them found in one infinite cache shared by all`].filter(Boolean).join(", ") + "</p>";
    if (s.results.length > 1)
        h = `<div class="tools screen"><label>regime <select data-result>${s.results.map((d, i) => `<option value="${i}"${i === s.result ? " selected" : ""}>${esc(d.title || (d.trace || {}).name || i)}</option>`).join("")}</select></label></div>` + h;
    const v = verdicts(s.lists[s.result]);
    if (v.length) h += `<p class="verdict">${v.map(esc).join(" ")}</p>`;
    return h;
}
function argumentsTable(s) {
    const a = s.results[s.result].arguments || {}, keys = Object.keys(a);
    if (!keys.length) return "";
    return `<h2>Arguments</h2><p>${keys.map(k => `<code>${esc(k)}=${esc(showArgument(a[k]))}</code>`).join(" ")}</p>`;
}

/* ---- decisions */

const SECONDS = /(^| )(s|seconds)$|^(wait|work|price|transfer)$/;
const TERM_COLORS = ["#8a5cd1", "#2a9d6f", "#e08a1e", "#14808f", "#d1495b", "#6b7a1f"];
function candidateTable(d, role) {
    const list = d.candidates.filter(c => c.role === role);
    if (!list.length) return "";
    const names = [...new Set(list.flatMap(c => c.terms.map(t => t[0])))];
    const inTime = names.filter(n => SECONDS.test(n));
    const value = (c, n) => (c.terms.find(t => t[0] === n) || [])[1];
    const longest = Math.max(...list.map(c => inTime.reduce((x, n) => x + Math.max(0, value(c, n) || 0), 0)), 1e-12);
    const best = Math.min(...list.filter(c => !c.barred && known(c.cost)).map(c => c.cost));
    const head = `<th>${esc(role)}</th>` + names.map(n => `<th>${esc(n)}</th>`).join("") + `<th>cost${d.costUnit ? " " + d.costUnit : ""}</th><th>above the least</th>` +
        (inTime.length ? `<th class="left">${inTime.map(n => `<span style="color:${TERM_COLORS[inTime.indexOf(n) % 6]}">■</span> ${esc(n.replace(/ (s|seconds)$/, ""))}`).join(" ")}</th>` : "");
    const rows = list.map(c => `<tr${c.chosen ? ' class="ours"' : ""}><td>${c.chosen ? "▸ " : ""}${esc(c.worker)}${c.barred ? ` <span class="bad">${esc(c.barred)}</span>` : ""}</td>` +
        names.map(n => `<td>${num(value(c, n))}</td>`).join("") + `<td><b>${known(c.cost) ? num(c.cost, 4) : "not possible"}</b></td><td>${known(c.cost) && known(best) ? num(c.cost - best) : "–"}</td>` +
        (inTime.length ? `<td><div class="terms">${inTime.map(n => `<span title="${esc(n)} ${num(value(c, n))}" style="width:${(100 * Math.max(0, value(c, n) || 0) / longest).toFixed(2)}%;background:${TERM_COLORS[inTime.indexOf(n) % 6]}"></span>`).join("")}</div></td>` : "") + "</tr>");
    return table(head, rows);
}
function detail(d, others) {
    const roles = [...new Set(d.candidates.map(c => c.role))];
    let h = `<b>Request ${esc(d.id)}</b>${d.tenant === undefined ? "" : ` of ${d.tenant === "" ? "nobody in particular" : esc(d.tenant)}, priority ${esc(d.priority)}`}, ${num(d.tokens)} tokens${known(d.matched) ? `, ${num(d.matched)} of them cached at its prefill worker` : ""}: ${esc(where(d))}` +
        (d.held > 0 ? `, after ${num(d.held)} s in the router` : ", at once") + (d.note ? `. <span class="soft">${esc(d.note)}</span>` : "") + ".";
    if (!d.candidates.length) h += "<p>No candidates were recorded for it.</p>";
    h += roles.map(r => candidateTable(d, r)).join("");
    if (d.more) h += `<p class="soft">${d.more} more candidates were not recorded.</p>`;
    if (others.length) h += `<p>The same request elsewhere: ${others.map(([name, o]) => `<b>${esc(name)}</b> ${esc(where(o))}${o.held > 0 ? `, held ${num(o.held)} s` : ""}`).join("; ")}</p>`;
    return h;
}
const DECISION_COLUMNS = [["id", "request"], ["t", "s"], ["tokens", "tokens"], ["matched", "cached"], ["", "prefill → decode"], ["held", "held s"], ["cost", "cost"], ["", "note"]];
function decisions(s) {
    const src = s.sources[s.source];
    let h = `<h2 id="decisions">Decisions</h2><div class="tools screen">`;
    if (s.sources.length) h += `<label>of <select data-source>${s.sources.map((x, i) => `<option value="${i}"${i === s.source ? " selected" : ""}>${esc(x.name)}</option>`).join("")}</select></label>`;
    h += `<label>request <input type="text" data-want="id" value="${esc(s.want.id)}" size="8"></label><label>worker <input type="text" data-want="worker" value="${esc(s.want.worker)}" size="8"></label>` +
        `<label><input type="checkbox" data-want="held"${s.want.held ? " checked" : ""}> held only</label>` +
        `<label class="drop" data-drop>open a log: <input type="file" data-file multiple></label></div>`;
    if (!src) return h + `<p class="soft">No decisions in this page. A run with <code>--decisions</code> puts them in; files of <code>pdroutectl log --json</code> or <code>pdroutectl replay --json</code> and decision files can be opened here or dropped anywhere.</p>`;
    if (src.error) return h + `<p class="bad">${esc(src.error)}</p>`;
    if (!src.list) return h + `<p class="soft">unpacking …</p>`;
    const list = select(src.list, s.want), pages = Math.max(1, Math.ceil(list.length / PAGE));
    s.page = Math.min(s.page, pages - 1);
    const head = DECISION_COLUMNS.map(([k, text]) => `<th${k ? ` data-order="${k}" style="cursor:pointer"` : ' class="left"'}${k && k === s.want.sort ? ' class="sorted"' : ""}>${text}${k && k === s.want.sort ? (s.want.down ? " ▾" : " ▴") : ""}</th>`).join("");
    const rows = list.slice(s.page * PAGE, s.page * PAGE + PAGE).flatMap(d => {
        const row = `<tr data-open="${esc(d.id)}" tabindex="0"><td>${esc(d.id)}</td><td>${known(d.t) ? d.t.toFixed(3) : "–"}</td><td>${num(d.tokens)}</td><td>${num(d.matched)}</td>` +
            `<td class="left">${esc(where(d))}</td><td>${d.held > 0 ? num(d.held) : ""}</td><td>${num(d.cost)}</td><td class="left soft">${esc(d.note)}</td></tr>`;
        if (s.open === null || String(d.id) !== String(s.open)) return [row];
        const others = s.sources.filter((x, i) => i !== s.source && x.result === src.result && x.list).map(x => [x.name, x.list.find(o => o.id === d.id)]).filter(x => x[1]);
        return [row, `<tr class="detail"><td colspan="${DECISION_COLUMNS.length}">${detail(d, others)}</td></tr>`];
    });
    h += `<p class="soft">${num(list.length)} of ${num(src.list.length)} decisions${src.bad ? `, <span class="bad">${src.bad} lines were no decisions</span>` : ""}. A click opens one: every candidate with every term.</p>` + table(head, rows);
    if (pages > 1) h += `<div class="tools screen"><button data-page="-1"${s.page ? "" : " disabled"}>earlier</button> page ${s.page + 1} of ${pages} <button data-page="1"${s.page < pages - 1 ? "" : " disabled"}>later</button></div>`;
    return h;
}

function render(s) {
    const doc = s.results[s.result], results = doc && s.lists[s.result].length;
    return (doc ? heading(s) : "<h1>Decisions of a router</h1>") + (results ? legend(s) + plots(s) + summary(s) + tenants(s) : "") + decisions(s) + (doc ? argumentsTable(s) : "");
}

/* ---- events */

async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), c => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
async function need(s, i) {
    const src = s.sources[i];
    if (!src || src.list || src.error) return;
    try {
        Object.assign(src, decisionsOf(await unpack(src.gz)));
        src.gz = null;
    } catch (e) {
        src.error = `These decisions could not be unpacked by this browser (${e.message}).`;
    }
    draw(s);
}
async function openFile(s, file) {
    let text, bytes = new Uint8Array(await file.arrayBuffer());
    const src = {name: file.name, result: -1};
    try {
        if (bytes[0] === 0x1f && bytes[1] === 0x8b) text = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
        else text = new TextDecoder().decode(bytes);
        if (text.startsWith("PDRREC1")) throw new Error("a recording is binary: `pdroutectl replay --json FILE` writes what can be opened here");
        const whole = text.trimStart().startsWith('{"schema"') ? JSON.parse(text) : null;
        if (whole && Array.isArray(whole.runs)) {
            whole.title = whole.title || file.name;
            s.results.push(whole);
            s.lists.push(policiesOf(whole));
            s.result = s.results.length - 1;
            choosePolicies(s);
            return draw(s);
        }
        Object.assign(src, decisionsOf(text));
        if (!src.list.length) throw new Error("it has no line that is a decision");
    } catch (e) {
        src.error = `${file.name} could not be opened: ${e.message}.`;
    }
    s.sources.push(src);
    s.source = s.sources.length - 1;
    s.page = 0, s.open = null;
    draw(s);
}

let place; /* the element that holds everything */
function draw(s) {
    const focus = document.activeElement && document.activeElement.dataset && document.activeElement.dataset.want, scroll = window.scrollY;
    place.innerHTML = render(s);
    if (focus) {
        const e = place.querySelector(`[data-want="${focus}"]`);
        e.focus();
        if (e.setSelectionRange && e.type === "text") e.setSelectionRange(e.value.length, e.value.length);
    }
    window.scrollTo(0, scroll);
    need(s, s.source);
}

function clicked(s, e) {
    const t = e.target.closest("[data-policy],[data-sort],[data-order],[data-page],tr[data-open]");
    if (!t) return;
    const d = t.dataset;
    if (d.policy !== undefined) s.on.has(d.policy) ? s.on.delete(d.policy) : s.on.add(d.policy);
    else if (d.sort) s.sort === d.sort ? s.down = !s.down : (s.sort = d.sort, s.down = false);
    else if (d.order) s.want.sort === d.order ? s.want.down = !s.want.down : (s.want.sort = d.order, s.want.down = ["tokens", "held", "cost"].includes(d.order)), s.page = 0;
    else if (d.page) s.page += Number(d.page), s.open = null;
    else s.open = String(s.open) === d.open ? null : d.open;
    draw(s);
}
function changed(s, e) {
    const d = e.target.dataset;
    if (d.want) s.want[d.want] = e.target.type === "checkbox" ? e.target.checked : e.target.value.trim(), s.page = 0;
    else if (d.source !== undefined) s.source = Number(e.target.value), s.page = 0;
    else if (d.result !== undefined) s.result = Number(e.target.value), choosePolicies(s);
    else if (d.file !== undefined) {
        for (const f of e.target.files) openFile(s, f);
        return;
    } else return;
    draw(s);
}
/* Values of every shown policy under the pointer. */
function pointed(s, e) {
    const svg = e.target.closest && e.target.closest("svg[data-plot]"), tip = document.getElementById("tip");
    if (!svg || !["ttft", "tpot"].includes(svg.dataset.plot)) return void (tip.hidden = true);
    const [left, width, whole] = svg.dataset.box.split(",").map(Number), box = svg.getBoundingClientRect();
    const x = ((e.clientX - box.left) / box.width * whole - left) / width * 2.4;
    if (x < 0 || x > 2.4) return void (tip.hidden = true);
    const i = x > 2.2 ? 100 : Math.min(99, Math.max(0, Math.round(100 * (1 - 10 ** -x)))), key = svg.dataset.plot + "Quantiles";
    const rows = s.lists[s.result].filter(p => s.on.has(p.name) && p[key].length).sort((a, b) => b[key][i] - a[key][i]);
    tip.innerHTML = `<div class="soft">${i === 100 ? "the longest" : i + " % of the requests within"}</div>` + rows.map(p => `<div><i style="background:${colorOf(s, p)}"></i>${esc(short(p.name, 30))}<b>${num(p[key][i])}</b></div>`).join("");
    tip.hidden = false;
    tip.style.left = Math.min(e.pageX + 14, document.documentElement.clientWidth - 270) + "px";
    tip.style.top = e.pageY + 14 + "px";
}

function start() {
    const data = JSON.parse(document.getElementById("data").textContent), s = newState(data.results, data.decisions);
    place = document.getElementById("page");
    document.addEventListener("click", e => clicked(s, e));
    document.addEventListener("keydown", e => e.key === "Enter" && e.target.matches && e.target.matches("tr[data-open]") && clicked(s, e));
    document.addEventListener("change", e => e.target.type !== "text" && changed(s, e));
    document.addEventListener("input", e => e.target.type === "text" && changed(s, e));
    document.addEventListener("mousemove", e => pointed(s, e));
    document.addEventListener("dragover", e => e.preventDefault());
    document.addEventListener("drop", e => {
        e.preventDefault();
        for (const f of e.dataTransfer.files) openFile(s, f);
    });
    draw(s);
}
if (typeof document !== "undefined") start();
