// What Chart.js has no element for: whiskers, the line of the limit, and labels that keep out of each other's way.
"use strict";

function whiskers(colours) {
  return {
    id: "whiskers",
    beforeDatasetsDraw({ ctx, scales: { x, y } }, _, { points }) {
      ctx.save();
      ctx.lineWidth = 1.5;
      for (const point of points.filter((each) => each.low !== null)) {
        ctx.strokeStyle = see_through(colour_of(colours, point.kind), 0.7);
        const [across, top, bottom] = [x.getPixelForValue(point.x), ...[point.low, point.high].map((end) => y.getPixelForValue(end))];
        ctx.beginPath();
        ctx.moveTo(across, top);
        ctx.lineTo(across, bottom);
        for (const end of [top, bottom]) {
          ctx.moveTo(across - 4, end);
          ctx.lineTo(across + 4, end);
        }
        ctx.stroke();
      }
      ctx.restore();
    },
  };
}

function limit_line(colours) {
  return {
    id: "limit",
    beforeDatasetsDraw({ ctx, chartArea, scales: { y } }, _, { limit }) {
      if (!limit) return;
      const height = y.getPixelForValue(limit.y);
      ctx.save();
      ctx.strokeStyle = colours.text;
      ctx.setLineDash([6, 4]);
      ctx.beginPath();
      ctx.moveTo(chartArea.left, height);
      ctx.lineTo(chartArea.right, height);
      ctx.stroke();
      ctx.fillStyle = colours.muted;
      ctx.font = `12px ${Chart.defaults.font.family}`;
      ctx.textAlign = "right";
      ctx.fillText(limit.label, chartArea.right - 6, height + 15);
      ctx.restore();
    },
  };
}

const GAP = 5;

// Right, left, above and below a dot: the first place where a text meets no dot and no other text.
function places(dot, width, height) {
  const [far, middle] = [dot.r + GAP, height / 2];
  return [
    { left: dot.x + far, top: dot.y - middle },
    { left: dot.x - far - width, top: dot.y - middle },
    { left: dot.x - width / 2, top: dot.y - far - height },
    { left: dot.x - width / 2, top: dot.y + far },
    { left: dot.x + far, top: dot.y - far - height },
    { left: dot.x + far, top: dot.y + far },
    { left: dot.x - far - width, top: dot.y - far - height },
    { left: dot.x - far - width, top: dot.y + far },
  ].map(({ left, top }) => ({ left, top, right: left + width, bottom: top + height }));
}

function overlap(a, b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

function inside(box, area) {
  return box.left >= area.left && box.right <= area.right && box.top >= area.top && box.bottom <= area.bottom;
}

function labels(colours) {
  return {
    id: "labels",
    afterDatasetsDraw({ ctx, chartArea, scales: { x, y } }, _, { points }) {
      const dots = points.map((each) => ({ x: x.getPixelForValue(each.x), y: y.getPixelForValue(each.y), r: each.r }));
      const taken = dots.map(({ x, y, r }) => ({ left: x - r, right: x + r, top: y - r, bottom: y + r }));
      ctx.save();
      ctx.textBaseline = "top";
      ctx.strokeStyle = colours.ground;
      ctx.lineWidth = 4;
      ctx.lineJoin = "round";
      const important = (index) => (points[index].kind === "other" ? 1 : 0);
      const order = [...points.keys()].sort((a, b) => important(a) - important(b));
      for (const index of order) {
        const { kind, texts } = points[index];
        ctx.font = `${kind === "other" ? "" : "600 "}12px ${Chart.defaults.font.family}`;
        const others = taken.filter((_, other) => other !== index);
        const found = texts
          .flatMap((text) => places(dots[index], ctx.measureText(text).width, 13).map((box) => ({ text, box })))
          .find(({ box }) => inside(box, chartArea) && !others.some((other) => overlap(box, other)));
        if (!found) continue;
        taken.push(found.box);
        // A halo keeps the text readable where it crosses a line.
        ctx.strokeText(found.text, found.box.left, found.box.top);
        ctx.fillStyle = kind === "other" ? colours.muted : colour_of(colours, kind);
        ctx.fillText(found.text, found.box.left, found.box.top);
      }
      ctx.restore();
    },
  };
}
