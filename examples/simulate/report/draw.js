/* Plots as SVG text. Pure functions: numbers in, text out. */
"use strict";

const esc = s => String(s).replace(/[&<>"']/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})[c]);
const known = x => typeof x === "number" && isFinite(x);
/* Three significant digits, no exponent; large numbers in groups. */
function num(x, digits = 3) {
    if (!known(x)) return "–";
    if (x === 0) return "0";
    const a = Math.abs(x);
    if (a >= 10000) return Math.round(x).toLocaleString("en").replace(/,/g, "\u202f");
    const places = Math.max(0, digits - 1 - Math.floor(Math.log10(a)));
    return x.toFixed(Math.min(places, 6));
}
/* For axes and arguments: no zeros at the end. */
const trim = x => num(x).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
const percent = (x, digits = 1) => known(x) ? (100 * x).toFixed(digits) + " %" : "–";

/* Round tick values between lo and hi. */
function ticks(lo, hi, log) {
    const out = [];
    if (log) {
        const wide = Math.log10(hi / lo) > 3.2;
        for (let e = Math.floor(Math.log10(lo)); e <= Math.ceil(Math.log10(hi)); e++)
            for (const m of wide ? [1] : [1, 2, 5]) {
                const v = m * 10 ** e;
                if (v >= lo * .999 && v <= hi * 1.001) out.push(v);
            }
        return out;
    }
    const raw = (hi - lo) / 5 || 1, p = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(m => m * p).find(s => s >= raw * .999);
    const first = Math.ceil(lo / step - 1e-9);
    for (let i = 0; i < 12 && (first + i) * step <= hi + step * 1e-9; i++) out.push((first + i) * step);
    return out;
}

/* [lo, hi] of values; equal ones (but for rounding) get some room. */
function extent(values) {
    const lo = Math.min(...values), hi = Math.max(...values), size = Math.max(Math.abs(lo), Math.abs(hi));
    if (hi - lo > size * 1e-6) return [lo, hi];
    return size ? [lo - size / 4, hi + size / 4] : [0, 1];
}

/* Moves labels apart that would overlap: list of {y}, ascending order is kept. */
function spread(labels, gap, lo, hi) {
    const l = labels.slice().sort((a, b) => a.y - b.y);
    for (let i = 0; i < l.length; i++) l[i].y = Math.max(l[i].y, i ? l[i - 1].y + gap : lo);
    for (let i = l.length - 1; i >= 0; i--) l[i].y = Math.min(l[i].y, i < l.length - 1 ? l[i + 1].y - gap : hi);
    return l;
}

/*
 * Lines over x. o: {title, xs: positions, xTicks: [[position, text]], xLabel, yLabel, log, from0, lines: [{name, color, ys, strong, faint}]}.
 * Faint lines are drawn grey and carry no label.
 */
function linePlot(o) {
    const W = 560, H = 300, L = 52, R = 120, T = 14, B = 38, w = W - L - R, h = H - T - B;
    const all = o.lines.flatMap(l => l.ys).filter(y => known(y) && (!o.log || y > 0));
    if (!all.length) return "";
    let [lo, hi] = extent(all);
    if (o.from0) lo = 0;
    if (hi <= lo) hi = lo + 1;
    if (o.log) lo = Math.max(lo, hi / 1e5);
    const x0 = o.xs[0], x1 = o.xs[o.xs.length - 1];
    const X = x => L + w * (x - x0) / (x1 - x0 || 1);
    const Y = y => T + h * (1 - (o.log ? Math.log(Math.max(y, lo) / lo) / Math.log(hi / lo) : (y - lo) / (hi - lo)));
    const path = ys => {
        let d = "", pen = false;
        ys.forEach((y, i) => {
            if (!known(y)) return void (pen = false);
            d += `${pen ? "L" : "M"}${X(o.xs[i]).toFixed(1)} ${Y(y).toFixed(1)}`;
            pen = true;
        });
        return d;
    };
    let s = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${esc(o.title)}" data-plot="${esc(o.id || "")}" data-box="${L},${w},${W}">`;
    for (const t of ticks(lo, hi, o.log)) {
        const y = Y(t).toFixed(1);
        s += `<line class="grid" x1="${L}" x2="${L + w}" y1="${y}" y2="${y}"/><text x="${L - 6}" y="${+y + 4}" text-anchor="end">${trim(t)}</text>`;
    }
    for (const [x, text] of o.xTicks) {
        s += `<line class="grid" x1="${X(x).toFixed(1)}" x2="${X(x).toFixed(1)}" y1="${T}" y2="${T + h + 4}"/>`;
        s += `<text x="${X(x).toFixed(1)}" y="${T + h + 16}" text-anchor="middle">${esc(text)}</text>`;
    }
    s += `<line class="axis" x1="${L}" x2="${L + w}" y1="${T + h}" y2="${T + h}"/>`;
    s += `<text x="${L + w / 2}" y="${H - 6}" text-anchor="middle">${esc(o.xLabel)}</text><text x="${L}" y="${T - 4}">${esc(o.yLabel)}</text>`;
    const order = o.lines.slice().sort((a, b) => (b.faint ? 1 : 0) - (a.faint ? 1 : 0) || (a.strong ? 1 : 0) - (b.strong ? 1 : 0));
    const labels = [];
    for (const l of order) {
        const color = l.faint ? "var(--line)" : l.color;
        s += `<path d="${path(l.ys)}" fill="none" stroke="${color}" stroke-width="${l.strong ? 2.6 : l.faint ? 1 : 1.6}" stroke-linejoin="round"><title>${esc(l.name)}</title></path>`;
        const last = l.ys.length - 1 - l.ys.slice().reverse().findIndex(known);
        if (!l.faint && last < l.ys.length) labels.push({y: Y(l.ys[last]) + 4, l});
    }
    for (const {y, l} of spread(labels, 12, T + 6, T + h))
        s += `<text x="${L + w + 6}" y="${y.toFixed(1)}" style="fill:${l.color}"${l.strong ? ' class="strong"' : ""}>${esc(short(l.name))}</text>`;
    return s + "</svg>";
}
const short = (s, n = 17) => s.length > n ? s.slice(0, n - 1) + "…" : s;

/* Rows with a bar each: [{name, value, low, high, mark, color, strong}]. `mark` is a second value, a tick on the same axis (o.log). */
function barPlot(o) {
    const rows = o.rows.filter(r => known(r.value));
    if (!rows.length) return "";
    const W = 560, L = 190, R = 56, T = 16, step = 17, H = T + rows.length * step + 30, w = W - L - R;
    const values = rows.flatMap(r => [r.value, r.high, r.mark]).filter(v => known(v) && (!o.log || v > 0));
    const hi = Math.max(...values), lo = o.log ? Math.min(...rows.map(r => known(r.low) && r.low > 0 ? r.low : r.value)) / 1.6 : 0;
    const X = v => L + w * (o.log ? Math.log(Math.max(v, lo) / lo) / Math.log(hi / lo || 2) : v / (hi || 1));
    let s = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${esc(o.title)}">`;
    for (const t of ticks(lo, hi, o.log)) {
        const x = X(t).toFixed(1);
        s += `<line class="grid" x1="${x}" x2="${x}" y1="${T - 4}" y2="${H - 26}"/><text x="${x}" y="${H - 13}" text-anchor="middle">${trim(t)}</text>`;
    }
    rows.forEach((r, i) => {
        const y = T + i * step, x = X(r.value);
        s += `<text x="${L - 8}" y="${y + 9}" text-anchor="end"${r.strong ? ' class="strong"' : ""}>${esc(short(r.name, 27))}<title>${esc(r.name)}</title></text>`;
        s += `<rect x="${L}" y="${y}" width="${Math.max(x - L, 1).toFixed(1)}" height="11" rx="1.5" fill="${r.color}"/>`;
        if (known(r.low) && known(r.high) && r.high > r.low)
            s += `<path class="axis" d="M${X(r.low).toFixed(1)} ${y + 5.5}H${X(r.high).toFixed(1)}M${X(r.low).toFixed(1)} ${y + 2.5}v6M${X(r.high).toFixed(1)} ${y + 2.5}v6" fill="none"/>`;
        if (known(r.mark)) s += `<path d="M${X(r.mark).toFixed(1)} ${y}v11" stroke="${r.color}" stroke-width="2" fill="none"/>`;
        s += `<text x="${(Math.max(x, known(r.high) ? X(r.high) : 0, known(r.mark) && X(r.mark) - x < 60 ? X(r.mark) : 0) + 5).toFixed(1)}" y="${y + 9}" class="${r.strong ? "strong" : ""}">${num(r.value)}</text>`;
    });
    return s + `<text x="${L + w / 2}" y="${H - 1}" text-anchor="middle">${esc(o.xLabel)}</text></svg>`;
}

/* Points with names: [{name, x, y, color, strong}]. Names only where there is room; always as a title. */
function dotPlot(o) {
    const dots = o.dots.filter(d => known(d.x) && known(d.y) && (!o.log || d.y > 0));
    if (!dots.length) return "";
    const W = 560, H = 300, L = 52, R = 24, T = 14, B = 38, w = W - L - R, h = H - T - B;
    let [xl, xh] = extent(dots.map(d => d.x)), [yl, yh] = extent(dots.map(d => d.y));
    const pad = (xh - xl) * .06;
    xl -= pad, xh += pad;
    o.log ? (yl /= 1.2, yh *= 1.2) : (yl = 0, yh = yh * 1.1 || 1);
    const X = x => L + w * (x - xl) / (xh - xl), Y = y => T + h * (1 - (o.log ? Math.log(y / yl) / Math.log(yh / yl) : (y - yl) / (yh - yl)));
    let s = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="${esc(o.title)}">`;
    for (const t of ticks(yl, yh, o.log)) s += `<line class="grid" x1="${L}" x2="${L + w}" y1="${Y(t).toFixed(1)}" y2="${Y(t).toFixed(1)}"/><text x="${L - 6}" y="${(Y(t) + 4).toFixed(1)}" text-anchor="end">${trim(t)}</text>`;
    for (const t of ticks(xl, xh)) s += `<line class="grid" x1="${X(t).toFixed(1)}" x2="${X(t).toFixed(1)}" y1="${T}" y2="${T + h}"/><text x="${X(t).toFixed(1)}" y="${T + h + 15}" text-anchor="middle">${esc(o.xText ? o.xText(t) : trim(t))}</text>`;
    const order = dots.slice().sort((a, b) => (a.strong ? 1 : 0) - (b.strong ? 1 : 0) || (a.color ? 1 : 0) - (b.color ? 1 : 0));
    for (const d of order)
        s += `<circle cx="${X(d.x).toFixed(1)}" cy="${Y(d.y).toFixed(1)}" r="${d.strong ? 5.5 : 4}" fill="${d.color || "var(--bar)"}"><title>${esc(d.name)}: ${num(d.x)}, ${num(d.y)}</title></circle>`;
    const taken = order.map(d => [X(d.x) - 5, Y(d.y) - 5, X(d.x) + 5, Y(d.y) + 5]);
    for (const d of order.reverse().filter(e => e.color || e.strong)) {
        const x = X(d.x), y = Y(d.y), name = short(d.name, 24), width = name.length * 6, right = x + 8 + width < W;
        const box = [right ? x + 7 : x - 7 - width, y - 7, right ? x + 7 + width : x - 7, y + 6];
        if (taken.some(b => box[0] < b[2] && b[0] < box[2] && box[1] < b[3] && b[1] < box[3])) continue;
        taken.push(box);
        s += `<text x="${(right ? x + 8 : x - 8).toFixed(1)}" y="${(y + 4).toFixed(1)}"${right ? "" : ' text-anchor="end"'}${d.strong ? ' class="strong"' : ""}>${esc(name)}</text>`;
    }
    return s + `<text x="${L + w / 2}" y="${H - 6}" text-anchor="middle">${esc(o.xLabel)}</text><text x="${L}" y="${T - 4}">${esc(o.yLabel)}</text></svg>`;
}
