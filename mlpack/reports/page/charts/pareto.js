// All candidates: latency across, accuracy upwards, the area of a dot is the size of the model.
"use strict";

const LARGEST = 15;
const SMALLEST = 4;

function pareto(canvas, figure, colours) {
  const largest = Math.max(...figure.points.map((each) => each.size ?? 0), 1);
  const points = figure.points.map((each) => ({
    ...each,
    r: Math.max(SMALLEST, LARGEST * Math.sqrt((each.size ?? 0) / largest)),
  }));
  const heights = points.flatMap((each) => [each.y, each.low ?? each.y, each.high ?? each.y]);
  if (figure.limit) heights.push(figure.limit.y);
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  const times = points.map((each) => each.x);
  const colour = ({ dataIndex }) => colour_of(colours, points[dataIndex]?.kind);
  const drawn = { limit: figure.limit, points };
  return new Chart(canvas, {
    type: "scatter",
    data: {
      datasets: [
        {
          data: points,
          pointStyle: points.map((each) => (each.kind === "original" ? "rectRot" : "circle")),
          pointRadius: points.map((each) => each.r),
          pointHoverRadius: points.map((each) => each.r + 2),
          pointHitRadius: 8,
          pointBorderWidth: 2,
          pointBorderColor: colour,
          pointBackgroundColor: (at) => see_through(colour(at), points[at.dataIndex]?.kind === "chosen" ? 0.85 : 0.25),
        },
        { data: figure.front, showLine: true, pointRadius: 0, pointHitRadius: 0, borderColor: colours.other, borderWidth: 1, borderDash: [2, 3], stepped: "before" },
      ],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      layout: { padding: { right: 8 } },
      scales: {
        x: time_axis(colours, figure.across, Math.min(...times), Math.max(...times), 12),
        y: axis(colours, figure.upwards, { reverse: figure.reverse, suggestedMin: low - room, suggestedMax: high + room }),
      },
      plugins: {
        legend: { display: false },
        tooltip: tooltip(colours, (item) => (item ? points[item.dataIndex].lines : [""])),
        whiskers: drawn,
        limit: drawn,
        labels: drawn,
      },
    },
    plugins: [whiskers(colours), limit_line(colours), labels(colours)],
  });
}
