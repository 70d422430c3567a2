// The calls of one batch size: a row for each launch, a dot for each call, a bar for the launch's median.
"use strict";

const BETWEEN_CONTENDERS = 0.6;
const GOLDEN = 0.618034;

function launches(canvas, figure, colours) {
  let down = -1;
  const rows = figure.rows.map((row, index) => {
    down += index && figure.rows[index - 1].kind !== row.kind ? 1 + BETWEEN_CONTENDERS : 1;
    return { ...row, down };
  });
  const dots = rows.flatMap((row) => row.ms.map((x, index) => ({ x, y: row.down + (((index * GOLDEN) % 1) - 0.5) * 0.5, row })));
  const medians = rows.map((row) => ({ x: row.median, y: row.down, row }));
  const colour = ({ raw }) => colour_of(colours, raw?.row.kind);
  const times = dots.map((each) => each.x);
  const names = new Map(rows.map((row) => [row.down, row.label]));
  const said = ({ raw, datasetIndex }) => [
    `${raw.row.label}`,
    datasetIndex === 0
      ? `median ${raw.row.median_text} ms of ${raw.row.calls} calls`
      : `one call: ${raw.x.toPrecision(3)} ms`,
  ];
  return new Chart(canvas, {
    type: "scatter",
    data: {
      datasets: [
        { data: medians, pointStyle: "line", pointRotation: 90, pointRadius: 9, pointHoverRadius: 11, pointBorderWidth: 3, pointBorderColor: colours.text },
        { data: dots, pointStyle: dots.map(({ row }) => (row.kind === "original" ? "rectRot" : "circle")), pointRadius: 3, pointHoverRadius: 4, pointBorderWidth: 0, pointBackgroundColor: (at) => see_through(colour(at) ?? colours.other, 0.4) },
      ],
    },
    options: {
      animation: false,
      maintainAspectRatio: false,
      layout: { padding: { right: 8 } },
      scales: {
        x: time_axis(colours, "ms for one call", Math.min(...times), Math.max(...times), 4),
        y: axis(colours, "", {
          title: { display: false },
          reverse: true,
          min: -0.7,
          max: down + 0.7,
          grid: { display: false },
          afterBuildTicks: (scale) => (scale.ticks = rows.map((row) => ({ value: row.down }))),
          ticks: { callback: (value) => names.get(value), autoSkip: false },
        }),
      },
      plugins: { legend: { display: false }, tooltip: tooltip(colours, (item) => (item ? said(item) : [""])) },
    },
  });
}
