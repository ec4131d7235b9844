/* What the result document and decision logs mean, brought to one form. Pure functions. */
"use strict";

const GOODPUT = [["2s_50ms", "2 s 50 ms"], ["1s_25ms", "1 s 25 ms"], ["5s_100ms", "5 s 100 ms"], ["scaled_50ms", "scaled"]];
const isOurs = policy => policy === "default" || policy.startsWith("pdroute");
const isReference = policy => policy.startsWith("reference");
const label = r => r.policy + (r.settings ? " " + r.settings.replace(/,/g, " ") : "");
const mean = a => a.length ? a.reduce((x, y) => x + y, 0) / a.length : NaN;
const at = (o, path) => path.split(".").reduce((x, k) => x == null ? undefined : x[k], o);

/* Two-sided 95 % quantiles of Student's t. */
const T95 = [NaN, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09];
function interval(values) {
    const n = values.length, m = mean(values);
    if (n < 2) return {mean: m, low: m, high: m};
    const sd = Math.sqrt(values.reduce((s, v) => s + (v - m) ** 2, 0) / (n - 1)), e = (T95[n - 1] || 1.96) * sd / Math.sqrt(n);
    return {mean: m, low: m - e, high: m + e};
}

/* Elementwise mean of arrays of numbers (null and NaN are left out). */
function meanArray(arrays) {
    const n = Math.max(0, ...arrays.map(a => a.length));
    return Array.from({length: n}, (_, i) => mean(arrays.map(a => a[i]).filter(known)));
}

/* One entry per policy and settings: means over its seeds, intervals for the mean TTFT. Best mean first. */
function policiesOf(doc) {
    const groups = new Map();
    for (const r of doc.runs || []) {
        const key = label(r);
        if (!groups.has(key)) groups.set(key, []);
        groups.get(key).push(r);
    }
    const list = [];
    for (const [name, runs] of groups) {
        const over = path => mean(runs.map(r => at(r, path)).filter(known));
        const max = path => Math.max(...runs.map(r => at(r, path)).filter(known));
        list.push({
            name, runs, policy: runs[0].policy, settings: runs[0].settings || "", ours: isOurs(runs[0].policy), reference: isReference(runs[0].policy),
            ttft: interval(runs.map(r => at(r, "ttft.mean")).filter(known)),
            p50: over("ttft.p50"), p90: over("ttft.p90"), p99: over("ttft.p99"), longest: max("ttft.max"), held: max("held.max"),
            tpot: over("tpot.mean"), tpot99: over("tpot.p99"),
            goodput: Object.fromEntries(GOODPUT.map(([k]) => [k, over("goodput." + k)])),
            hit: over("hit.fraction"), ofIdeal: over("hit.of_ideal"), cov: over("load.prefill_cov"), busy: over("load.prefill_busy"),
            moved: over("bytes.transferred"), reloaded: over("bytes.reloaded"), refused: over("refused"), local: over("decode_only"), preempted: over("preempted"),
            ttftQuantiles: meanArray(runs.map(r => r.ttft_quantiles || [])), tpotQuantiles: meanArray(runs.map(r => r.tpot_quantiles || [])),
            series: seriesOf(runs), tenants: tenantsOf(runs),
        });
    }
    return list.sort((a, b) => a.ttft.mean - b.ttft.mean);
}

function seriesOf(runs) {
    const have = runs.filter(r => Array.isArray(r.series) && r.series.length);
    if (!have.length) return null;
    const column = f => meanArray(have.map(r => r.series.map(f)));
    return {t: column(p => p.t), ttft: column(p => p.ttft_mean), queued: column(p => (p.held || 0) + (p.prefill_queued || 0))};
}

/* Who paid: one entry per tenant and priority, over the seeds as above; none in most results. */
function tenantsOf(runs) {
    const first = Array.isArray(runs[0].tenants) ? runs[0].tenants : [];
    return first.map((who, i) => {
        const values = path => runs.map(r => at((r.tenants || [])[i], path)).filter(known);
        const over = path => mean(values(path)), max = path => Math.max(...values(path));
        return {
            name: who.name, priority: who.priority, requests: over("requests"), ttft: interval(values("ttft.mean")), p50: over("ttft.p50"), p99: over("ttft.p99"), longest: max("ttft.max"), wait: max("wait.max"),
            goodput: Object.fromEntries(GOODPUT.map(([k]) => [k, over("goodput." + k)])), work: over("work"), refused: over("refused"),
        };
    });
}

/* The comparison in one sentence each: ours against the best of the others. */
function verdicts(list) {
    const ours = list.find(p => p.ours), others = list.filter(p => !p.ours && !p.reference);
    if (!ours || !others.length) return [];
    const better = (a, b) => known(a) && known(b) && b > 0 ? (a <= b ? `${percent(1 - a / b, 0)} lower than` : `${percent(a / b - 1, 0)} above`) : null;
    const best = (f, sign = 1) => others.filter(p => known(f(p))).sort((a, b) => sign * (f(a) - f(b)))[0];
    const out = [], t = best(p => p.ttft.mean), tail = best(p => p.p99), g = best(p => p.goodput["2s_50ms"], -1);
    if (t) out.push(`Mean TTFT ${num(ours.ttft.mean)} s, ${better(ours.ttft.mean, t.ttft.mean)} the best other (${t.name}: ${num(t.ttft.mean)} s).`);
    if (tail) out.push(`p99 ${num(ours.p99)} s against ${num(tail.p99)} s (${tail.name}).`);
    if (g) out.push(`Goodput ${num(ours.goodput["2s_50ms"])} against ${num(g.goodput["2s_50ms"])} (${g.name}).`);
    return out;
}

/* ---- decisions */

/* A line of the laboratory's decisions, or of `pdroutectl log --json`, in one form; null for anything else. */
function decision(o) {
    if (!o || typeof o !== "object" || !Array.isArray(o.candidates)) return null;
    if ("number" in o) {
        return {
            id: o.number, t: Number(o.time_ns) / 1e9, tokens: o.prompt_tokens, matched: o.matched_tokens, held: (o.held_us || 0) / 1e6,
            note: (o.outcome === "sent" ? "" : o.outcome || "") + (o.attempt ? ` attempt ${o.attempt + 1}` : ""),
            prefill: o.prefill, decode: o.decode, cost: (o.cost_us || 0) / 1e6, costUnit: "s",
            more: Math.max(0, (o.candidates_total || 0) - o.candidates.length),
            candidates: o.candidates.map(c => ({
                worker: (c.name ?? c.endpoint) + (c.rank === undefined ? "" : "/" + c.rank), role: c.role, chosen: !!c.chosen, barred: c.barred || "",
                cost: c.cost_us / 1e6,
                terms: [["matched tokens", c.matched_tokens], ["uncached tokens", c.uncached_tokens],
                        ...["wait", "work", "price", "transfer"].filter(k => known(c[k + "_us"])).map(k => [k + " s", c[k + "_us"] / 1e6])],
            })),
        };
    }
    const chosen = o.candidates.filter(c => c.chosen);
    const term = (c, k) => c && c.terms ? c.terms[k] : undefined;
    const first = chosen.find(c => c.role === "prefill") || chosen[0];
    return {
        id: o.id, t: o.t, tenant: o.tenant, priority: o.priority, tokens: o.in, matched: term(first, "matched tokens") ?? term(first, "matched"), held: o.held || 0, note: o.note || "", prefill: o.prefill, decode: o.decode,
        cost: first ? first.cost : NaN, costUnit: "", more: 0,
        candidates: o.candidates.map(c => ({worker: c.worker, role: c.role, chosen: !!c.chosen, barred: c.barred || "", cost: c.cost, terms: Object.entries(c.terms || {})})),
    };
}

/*
 * A line of `pdroutectl replay --json`: recorded and, if made again, replayed choice as the two candidates. `held` remembers tickets. undefined: nothing to show.
 */
function replayed(o, held) {
    if (!["routed", "released", "refused"].includes(o.kind)) return undefined;
    const first = held.get(o.ticket), t = Number(o.time_ns) / 1e9, r = o.recorded;
    if (o.kind === "routed" && r.outcome === "held") held.set(o.ticket, {t, tokens: o.prompt_tokens});
    else held.delete(o.ticket);
    const pair = (c, chosen) => ({
        worker: where(c), role: "pair", chosen, barred: c.outcome === "sent" ? "" : c.outcome, cost: c.cost_us / 1e6,
        terms: ["prefill", "transfer", "decode"].map(k => [k + " s", c[k + "_us"] / 1e6]),
    });
    const candidates = [pair(r, true)];
    if (o.replayed) candidates.push(Object.assign(pair(o.replayed, false), {worker: "again: " + where(o.replayed)}));
    return {
        id: o.number, t, tokens: o.prompt_tokens ?? (first && first.tokens), matched: undefined, held: o.kind === "routed" || !first ? 0 : t - first.t,
        note: [o.kind === "routed" ? "" : o.kind, r.outcome === "sent" ? "" : r.outcome, o.checked && !o.same ? "made again otherwise" : ""].filter(Boolean).join(", "),
        prefill: r.prefill, decode: r.decode, cost: r.cost_us / 1e6, costUnit: "s", more: 0, candidates,
    };
}
const where = d => d.prefill === null || d.prefill === undefined ? (d.decode === null || d.decode === undefined ? "nowhere" : `${d.decode} alone`) : `${d.prefill} → ${d.decode ?? "later"}`;

/* Text of a log: JSON lines. {list, bad}: bad counts lines that are no decision. */
function decisionsOf(text) {
    const list = [], held = new Map();
    let bad = 0;
    for (const line of text.split("\n")) {
        if (!line.trim()) continue;
        let d = null;
        try {
            const o = JSON.parse(line);
            d = o && o.kind && "ticket" in o ? replayed(o, held) : decision(o);
        } catch (e) { /* counted */ }
        if (d) list.push(d);
        else if (d === null) bad++;
    }
    return {list, bad};
}

const ORDERS = {id: d => d.id, t: d => d.t, tokens: d => d.tokens, matched: d => d.matched, held: d => d.held, cost: d => d.cost};
function select(list, want) {
    let out = list;
    if (want.id !== "") out = out.filter(d => String(d.id) === String(want.id));
    if (want.worker !== "") out = out.filter(d => String(d.prefill) === want.worker || String(d.decode) === want.worker);
    if (want.held) out = out.filter(d => d.held > 0);
    if (want.sort) {
        const f = ORDERS[want.sort], sign = want.down ? -1 : 1;
        out = out.slice().sort((a, b) => sign * ((f(a) ?? -Infinity) - (f(b) ?? -Infinity)) || a.id - b.id);
    }
    return out;
}
